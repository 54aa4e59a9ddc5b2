package fleetkey

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"
)

// The settings that OpenStore knows, as .NET spells the path to a value.
const (
	settingsSection   = "OpenIDServerSigningSettings"
	settingAWS        = settingsSection + ":AwsSecretManager"
	settingSecretName = settingAWS + ":SecretName"
	settingRegion     = settingAWS + ":Region"
	settingKMSKeyID   = settingAWS + ":KmsKeyId"
	settingFile       = settingsSection + ":File"
	settingPath       = settingFile + ":Path"
)

// Bounds of a settings file. A mebibyte of brackets overflows the stack of the
// JSON parser, which is recursive and sets no bound of its own.
const (
	maxSettingsSize  = 1 << 20
	maxSettingsParts = 50_000 // objects and arrays
)

// defaultKeyPath is where the keys are when no setting says so, relative to the
// directory of the settings file.
var defaultKeyPath = filepath.Join("openid-server-signing-keys", "keys.pem")

// OpenStore opens the store that an application's settings name. The settings
// file is an appsettings.json as .NET reads it: UTF-8 with or without a byte
// order mark, comments and trailing commas allowed, names compared without
// case, nested or joined by colons. All that stands outside the section
// OpenIDServerSigningSettings is ignored.
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
// An environment variable wins over the file: its name is the same path joined
// by two underscores, such as
// OpenIDServerSigningSettings__AwsSecretManager__SecretName. If settingsFile is
// empty there is only the environment; a settings file that does not exist is
// an error. No other file is read: where .NET adds an
// appsettings.Production.json, name the one that has the section.
//
// With an AwsSecretManager section the store is an [AWSStore], also when a File
// section stands beside it. Without one it is a [FileStore] at
// OpenIDServerSigningSettings:File:Path, where a relative path is taken from
// the directory of the settings file. Without that either, the file is
// openid-server-signing-keys/keys.pem in that directory: the one place that
// belongs to this application alone and does not change with the working
// directory or the user, either of which would give one application two keys.
// For the same reason there is no default, and no relative path, without a
// settings file. Set Path if a new release replaces that directory, or if the
// fleet has more than one machine: they must all see the same file.
//
// An instance that takes a local file by mistake has a key of its own, and the
// rest of the fleet refuses its tokens. So nothing in the section is guessed at
// or ignored: an AwsSecretManager section without a SecretName, a value that is
// empty, null or no string, a name that is given twice, or one that is unknown
// (AwsSecretsManager, say) is an error. It names the file and the line, and
// never quotes the file, since settings hold passwords. To switch to a local
// file, remove the AwsSecretManager section.
//
// OpenStore does not look whether the store is there and open to us: that comes
// with the first Load. It needs ctx only to find the region of an AWSStore.
func OpenStore(ctx context.Context, settingsFile string) (KeyStore, error) {
	set, dir, err := readSettings(settingsFile, os.Environ())
	if err == nil {
		err = set.check()
	}
	if err != nil {
		return nil, fmt.Errorf("open the key store by the settings: %w", err)
	}
	if name := set.value(settingSecretName); name != "" {
		s, err := NewAWSStore(ctx, name, func(o *AWSOptions) {
			o.Region = set.value(settingRegion)
			o.KMSKeyID = set.value(settingKMSKeyID)
		})
		if err != nil { // a nil *AWSStore in the interface would not be nil
			return nil, fmt.Errorf("open the key store by the settings: %w", err)
		}
		return s, nil
	}
	path := cmp.Or(set.value(settingPath), defaultKeyPath)
	if !filepath.IsAbs(path) {
		if dir == "" {
			return nil, fmt.Errorf("open the key store by the settings: no settings file is given, so set environment variable %s to a secret, or %s to an absolute path",
				envName(settingSecretName), envName(settingPath))
		}
		path = filepath.Join(dir, path)
	}
	return NewFileStore(path), nil
}

// readSettings reads a settings file, if there is one, and the environment over
// it. It returns the file's absolute directory, too. Links are not resolved:
// in Kubernetes a mounted file is a link into a directory that changes its name
// with each update.
func readSettings(file string, environ []string) (settings, string, error) {
	set, dir := settings{}, ""
	if file != "" {
		abs, err := filepath.Abs(file)
		if err != nil {
			return nil, "", err
		}
		dir = filepath.Dir(abs)
		text, err := readLimited(file)
		if err != nil {
			return nil, "", err
		}
		if set, err = parseSettings(file, text); err != nil {
			return nil, "", err
		}
	}
	env, err := environSettings(environ)
	if err != nil {
		return nil, "", err
	}
	for key, s := range env {
		set[key] = s
	}
	return set, dir, nil
}

func readLimited(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSettingsSize+1))
	if err == nil && len(text) > maxSettingsSize {
		err = fmt.Errorf("%s: larger than %d bytes", file, maxSettingsSize)
	}
	return text, err
}

// A setting is one value of the section, or a section with nothing in it.
type setting struct {
	name  string // as it was written
	place string // "appsettings.json:12" or "environment variable X"
	value string
	kind  hujson.Kind // of the JSON value; '{' is an empty section
}

// shown is the name for an error, unless it is none and may be part of a secret.
func (s setting) shown() string {
	if len(s.name) > 100 {
		return fmt.Sprintf("(a name of %d bytes)", len(s.name))
	}
	return strconv.Quote(s.name)
}

// settings holds the section's values by their path in lower case.
type settings map[string]setting

// inSection tells whether one path is another, or below it.
func inSection(path, section string) bool {
	path, section = strings.ToLower(path), strings.ToLower(section)
	return path == section || strings.HasPrefix(path, section+":")
}

// add refuses a path that is there already, as .NET does.
func (set settings) add(s setting) error {
	key := strings.ToLower(s.name)
	if first, ok := set[key]; ok {
		return fmt.Errorf("%s: %s is given twice, first at %s", s.place, s.shown(), first.place)
	}
	set[key] = s
	return nil
}

func (set settings) value(name string) string { return set[strings.ToLower(name)].value }

// under returns a setting and all below it, ordered by path, so that the same
// settings always give the same error.
func (set settings) under(name string) []setting {
	var found []setting
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if inSection(key, name) {
			found = append(found, set[key])
		}
	}
	return found
}

// check refuses what OpenStore would have to guess at.
func (set settings) check() error {
	sections := []string{settingsSection, settingAWS, settingFile}
	values := []string{settingSecretName, settingRegion, settingKMSKeyID, settingPath}
	for _, s := range set.under(settingsSection) {
		key := strings.ToLower(s.name) // EqualFold takes more letters for equal than value does
		same := func(name string) bool { return strings.ToLower(name) == key }
		switch {
		case slices.ContainsFunc(sections, same):
			if s.kind != '{' && s.kind != 'n' {
				return fmt.Errorf("%s: %s is a section, and takes no value of its own", s.place, s.name)
			}
		case !slices.ContainsFunc(values, same):
			return fmt.Errorf("%s: unknown setting %s; known are %s", s.place, s.shown(), strings.Join(values, ", "))
		case s.kind != '"':
			return fmt.Errorf("%s: %s is not a string", s.place, s.name)
		case strings.TrimSpace(s.value) == "":
			return fmt.Errorf("%s: %s is empty: give it a value, or remove it", s.place, s.name)
		}
	}
	if aws := set.under(settingAWS); len(aws) > 0 && set.value(settingSecretName) == "" {
		return fmt.Errorf("%s: %s is missing: set it, or remove the whole section to keep the keys in a file",
			aws[0].place, settingSecretName)
	}
	return nil
}

// environSettings picks the settings out of environment variables.
func environSettings(environ []string) (settings, error) {
	set := settings{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		path := strings.ReplaceAll(name, "__", ":")
		if !inSection(path, settingsSection) {
			continue
		}
		if err := set.add(setting{path, "environment variable " + name, value, '"'}); err != nil {
			return nil, err
		}
	}
	return set, nil
}

func envName(setting string) string { return strings.ReplaceAll(setting, ":", "__") }

// parseSettings picks the settings out of an appsettings.json.
func parseSettings(file string, text []byte) (settings, error) {
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return nil, fmt.Errorf("%s: encoded in UTF-16: save it as UTF-8", file)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) > maxSettingsParts {
		return nil, fmt.Errorf("%s: more than %d objects and arrays", file, maxSettingsParts)
	}
	root, err := hujson.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s%s", file, jsonProblem(err))
	}
	if root.Value.Kind() != '{' {
		return nil, fmt.Errorf("%s: not a JSON object", file)
	}
	r := settingsReader{file, text, settings{}}
	return r.set, r.walk("", root, 0)
}

type settingsReader struct {
	file string
	text []byte
	set  settings
}

// walk collects the values and empty objects of the section. Like .NET it goes
// no more than 64 levels deep.
func (r settingsReader) walk(path string, v hujson.Value, depth int) error {
	if object, ok := v.Value.(*hujson.Object); ok && len(object.Members) > 0 {
		if depth++; depth > 64 {
			return fmt.Errorf("%s: nested more than 64 levels deep", r.place(v))
		}
		for _, m := range object.Members {
			name := m.Name.Value.(hujson.Literal).String()
			if path != "" {
				name = path + ":" + name
			}
			if err := r.walk(name, m.Value, depth); err != nil {
				return err
			}
		}
		return nil
	}
	if !inSection(path, settingsSection) {
		return nil
	}
	s := setting{name: path, place: r.place(v), kind: v.Value.Kind()}
	if literal, ok := v.Value.(hujson.Literal); ok {
		s.value = literal.String()
	}
	return r.set.add(s)
}

func (r settingsReader) place(v hujson.Value) string {
	return fmt.Sprintf("%s:%d", r.file, 1+bytes.Count(r.text[:v.StartOffset], []byte("\n")))
}

// jsonProblem says where and why a file is no JSON. It leaves out the text that
// hujson quotes, which may be part of a password.
func jsonProblem(err error) string {
	var line, column int
	if _, scanErr := fmt.Sscanf(err.Error(), "hujson: line %d, column %d:", &line, &column); scanErr != nil {
		return ": not valid JSON"
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Sprintf(":%d:%d: not valid JSON: it ends too early", line, column)
	}
	return fmt.Sprintf(":%d:%d: not valid JSON", line, column)
}
