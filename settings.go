package fleetkey

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fleetkey/fleetkey/internal/appsettings"
)

// The settings of OpenStore, as paths in .NET notation.
const (
	settingsSection   = "OpenIDServerSigningSettings"
	settingAWS        = settingsSection + ":AwsSecretManager"
	settingSecretName = settingAWS + ":SecretName"
	settingRegion     = settingAWS + ":Region"
	settingKMSKeyID   = settingAWS + ":KmsKeyId"
	settingFile       = settingsSection + ":File"
	settingPath       = settingFile + ":Path"
)

// defaultKeyPath is the default path of the keys, relative to the directory of the settings
// file.
var defaultKeyPath = filepath.Join("openid-server-signing-keys", "keys.pem")

// OpenStore opens the store that an application's settings select. The settings file is an
// appsettings.json as read by .NET: comments and trailing commas are allowed, names are not
// case-sensitive, and everything outside the section OpenIDServerSigningSettings is
// ignored.
//
//	{
//	  "OpenIDServerSigningSettings": {
//	    "AwsSecretManager": {
//	      "SecretName": "openid-server/signing",  // name or ARN
//	      "Region": "eu-west-1",                  // optional
//	      "KmsKeyId": "alias/signing"             // optional
//	    }
//	  }
//	}
//
// Environment variables override the file. Their names are the paths joined by two
// underscores, such as OpenIDServerSigningSettings__AwsSecretManager__SecretName. If
// settingsFile is empty, only the environment is used; a settings file that does not exist
// is an error. No other file, such as appsettings.Production.json, is read.
//
// With an AwsSecretManager section the store is an [AWSStore], even if there is a File
// section too. Otherwise it is a [FileStore] at OpenIDServerSigningSettings:File:Path, by
// default openid-server-signing-keys/keys.pem. A relative path is relative to the directory
// of the settings file, so it depends neither on the working directory nor on the user;
// without a settings file it is an error. Set Path if a new release replaces that
// directory, or if the fleet has more than one machine: all instances must use the same
// file.
//
// OpenStore does not guess, and it ignores nothing in the section. Otherwise an instance
// might use a local file by mistake, with a key that the rest of the fleet does not know. A
// missing SecretName, a value that is empty, null or not a string, a duplicate name and an
// unknown name (such as AwsSecretsManager) are errors. They name the file and line but never quote the file,
// since settings contain passwords.
//
// OpenStore does not contact the store; the first Load does. ctx is used only to find the
// region of an AWSStore.
func OpenStore(ctx context.Context, settingsFile string) (KeyStore, error) {
	store, err := openStore(ctx, settingsFile)
	if err != nil {
		return nil, fmt.Errorf("open the key store from the settings: %w", err)
	}
	return store, nil
}

func openStore(ctx context.Context, settingsFile string) (KeyStore, error) {
	set, dir, err := appsettings.Read(settingsSection, settingsFile, os.Environ())
	if err == nil {
		err = checkSettings(set)
	}
	if err != nil {
		return nil, err
	}
	if name := set.Value(settingSecretName); name != "" {
		s, err := NewAWSStore(ctx, name, func(o *AWSOptions) {
			o.Region, o.KMSKeyID = set.Value(settingRegion), set.Value(settingKMSKeyID)
		})
		if err != nil { // a nil *AWSStore in the interface would not be nil
			return nil, err
		}
		return s, nil
	}
	path := cmp.Or(set.Value(settingPath), defaultKeyPath)
	if !filepath.IsAbs(path) {
		if dir == "" {
			return nil, fmt.Errorf("no settings file is given: set environment variable %s to the name of a secret, or %s to an absolute path",
				appsettings.EnvName(settingSecretName), appsettings.EnvName(settingPath))
		}
		path = filepath.Join(dir, path)
	}
	return NewFileStore(path), nil
}

// checkSettings rejects settings that OpenStore would have to guess about.
func checkSettings(set appsettings.Settings) error {
	sections := []string{settingsSection, settingAWS, settingFile}
	values := []string{settingSecretName, settingRegion, settingKMSKeyID, settingPath}
	for _, s := range set.Under(settingsSection) {
		key := strings.ToLower(s.Name) // EqualFold treats more letters as equal than Value does
		same := func(name string) bool { return strings.ToLower(name) == key }
		switch {
		case slices.ContainsFunc(sections, same):
			if s.Kind != '{' && s.Kind != 'n' {
				return fmt.Errorf("%s: %s is a section and cannot have a value", s.Place, s.Name)
			}
		case !slices.ContainsFunc(values, same):
			return fmt.Errorf("%s: unknown setting %s; the known settings are %s", s.Place, s.Shown(), strings.Join(values, ", "))
		case s.Kind != '"':
			return fmt.Errorf("%s: %s is not a string", s.Place, s.Name)
		case strings.TrimSpace(s.Value) == "":
			return fmt.Errorf("%s: %s is empty: give it a value, or remove it", s.Place, s.Name)
		}
	}
	if aws := set.Under(settingAWS); len(aws) > 0 && set.Value(settingSecretName) == "" {
		return fmt.Errorf("%s: %s is missing: set it, or remove the whole section to keep the keys in a file",
			aws[0].Place, settingSecretName)
	}
	return nil
}
