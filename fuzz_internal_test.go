package fleetkey

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The fuzz targets here are about what a Signer is set up with.

// FuzzEnviron: the environment says the same as a file with the same setting.
func FuzzEnviron(f *testing.F) {
	for _, name := range []string{settingSecretName, settingRegion, settingKMSKeyID, settingPath, settingFile, settingsSection, strings.ToUpper(settingPath), "openidserversigningsettings:x", settingPath + ":x", "PATH", "", "OpenIDServerſigningSettings:File:Path"} {
		f.Add(envName(name), "value")
		f.Add(name, "")
		f.Add(envName(name), " ")
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") || !utf8.ValidString(name+value) {
			return // no environment has such
		}
		path := strings.ReplaceAll(name, "__", ":")
		text, err := json.Marshal(map[string]string{path: value})
		require.NoError(t, err)
		inFile, err := parseSettings("appsettings.json", text)
		require.NoError(t, err)
		set, err := environSettings([]string{"HOME=/", name + "=" + value})
		require.NoError(t, err)
		require.Equal(t, valuesOf(inFile), valuesOf(set))
		require.Equal(t, inFile.check() == nil, set.check() == nil)
		_, err = environSettings([]string{name + "=" + value, strings.ToUpper(name) + "=x"})
		lower := strings.ToLower // and not EqualFold, as for check
		twice := len(set) > 0 && lower(strings.ToUpper(path)) == lower(path)
		require.Equal(t, twice, err != nil)
	})
}

// FuzzMovedNote: whatever a store is called, the note about it leaves the bundle
// what it was.
func FuzzMovedNote(f *testing.F) {
	bundle := mustEncode(f, mustKey(f, "ES256", june))
	for _, seed := range []string{"file /keys.pem", "-----BEGIN CERTIFICATE-----", "----", "-- -- --", "---", "\n-----END CERTIFICATE-----\n", "\x00", "-\n-"} {
		f.Add(seed)
	}
	want, err := parseKeySet(bundle)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, name string) {
		noted := append(slices.Clone(bundle), movedNote(namedStore{name: name})...)
		set, err := parseKeySet(noted)
		require.NoError(t, err)
		require.True(t, slices.EqualFunc(want.keys, set.keys, sameKey))
	})
}

type namedStore struct {
	KeyStore
	name string
}

func (s namedStore) String() string { return s.name }
