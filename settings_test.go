package fleetkey

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/tailscale/hujson"

	"github.com/fleetkey/fleetkey/internal/appsettings"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

const (
	envSection    = "OpenIDServerSigningSettings__AwsSecretManager__"
	envSecretName = envSection + "SecretName"
	envPath       = "OpenIDServerSigningSettings__File__Path"
)

// writeSettings writes an appsettings.json to a new directory.
func writeSettings(t testing.TB, text string) (file, dir string) {
	dir = t.TempDir()
	file = filepath.Join(dir, "appsettings.json")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	return file, dir
}

// awsSection returns a settings file with these members in its AWS section.
func awsSection(members string) string {
	return `{"OpenIDServerSigningSettings": {"AwsSecretManager": {` + members + `}}}`
}

func TestOpenStoreAWS(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		env  map[string]string
		want string
		kms  string
	}{
		"byte order mark":     {text: "\ufeff" + awsSection(`"SecretName": "app/key", "KmsKeyId": "alias/signing"`), want: "AWS secret app/key in eu-west-1", kms: "alias/signing"},
		"other case":          {text: `{"openidserversigningsettings": {"AWSSECRETMANAGER": {"secretname": "app/key"}}}`, want: "AWS secret app/key in eu-west-1"},
		"colons and nested":   {text: `{"OpenIDServerSigningSettings:AwsSecretManager": {"SecretName": "app/key"}, "OpenIDServerSigningSettings": {"AwsSecretManager:Region": "us-east-1"}}`, want: "AWS secret app/key in us-east-1"},
		"section in pieces":   {text: `{"OpenIDServerSigningSettings": {"AwsSecretManager": {"SecretName": "app/key"}}, "openIDServerSigningSettings": {"AwsSecretManager": {"Region": "us-east-1"}}}`, want: "AWS secret app/key in us-east-1"},
		"a file path as well": {text: `{"OpenIDServerSigningSettings": {"File": {"Path": "k.pem"}, "AwsSecretManager": {"SecretName": "app/key"}}}`, want: "AWS secret app/key in eu-west-1"},
		"environment alone":   {env: map[string]string{envSecretName: "env/key"}, want: "AWS secret env/key in eu-west-1"},
		"environment, all of it": {
			text: awsSection(`"SecretName": "app/key", "Region": "eu-west-1", "KmsKeyId": "alias/signing"`),
			env:  map[string]string{envSecretName: "env/key", envSection + "Region": "us-west-2", envSection + "KmsKeyId": "alias/env"},
			want: "AWS secret env/key in us-west-2", kms: "alias/env",
		},
		"environment fills a blank":    {text: awsSection(`"SecretName": ""`), env: map[string]string{envSecretName: "env/key"}, want: "AWS secret env/key in eu-west-1"},
		"environment over a file path": {text: `{"OpenIDServerSigningSettings": {"File": {"Path": "k.pem"}}}`, env: map[string]string{envSecretName: "env/key"}, want: "AWS secret env/key in eu-west-1"},
	} {
		t.Run(name, func(t *testing.T) {
			awsfake.New().Setenv(t)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			file := ""
			if tt.text != "" {
				file, _ = writeSettings(t, tt.text)
			}
			store, err := OpenStore(t.Context(), file)
			require.NoError(t, err)
			require.IsType(t, &AWSStore{}, store)
			assert.Equal(t, tt.want, store.(*AWSStore).String())
			assert.Equal(t, tt.kms, store.(*AWSStore).kmsKey)
		})
	}
}

func TestOpenStoreFile(t *testing.T) {
	abs := filepath.Join(t.TempDir(), "keys", "k.pem")
	absJSON, err := json.Marshal(abs)
	require.NoError(t, err)
	for name, tt := range map[string]struct {
		text, env string
		want      string // relative to the settings file's directory, or absolute
	}{
		"no section":     {text: `{}`, want: "openid-server-signing-keys/keys.pem"},
		"other settings": {text: `{"AwsSecretManager": {"SecretName": 1}, "SecretName": null, "OpenIDServerSigningSettingsOld": 1, "a": [1, {"b": []}]}`, want: "openid-server-signing-keys/keys.pem"},
		"below no name":  {text: `{"": {"OpenIDServerSigningSettings": {"File": {"Path": "k.pem"}}}}`, want: "openid-server-signing-keys/keys.pem"},
		"null section":   {text: `{"OpenIDServerSigningSettings": null}`, want: "openid-server-signing-keys/keys.pem"},
		"relative":       {text: `{"OpenIDServerSigningSettings": {"File": {"Path": "../shared/k.pem"}}}`, want: "../shared/k.pem"},
		"absolute":       {text: `{"OpenIDServerSigningSettings": {"File": {"Path": ` + string(absJSON) + `}}}`, want: abs},
		"environment":    {text: `{"OpenIDServerSigningSettings": {"File": {"Path": "file.pem"}}}`, env: "env.pem", want: "env.pem"},
		// F22: as .NET reads them.
		"comment at the end":        {text: "{\"OpenIDServerSigningSettings\": {\"File\": {\"Path\": \"k.pem\"}}}\n// x", want: "k.pem"},
		"comment and return":        {text: "{\"OpenIDServerSigningSettings\": {\"File\": {\"Path\": \"k.pem\"}}} // x\r", want: "k.pem"},
		"comment that return ends":  {text: "{ // x\r\"OpenIDServerSigningSettings\": {\"File\": {\"Path\": \"k.pem\"}},\r\"x\": 1\n}", want: "k.pem"},
		"pair of surrogates, FEFF":  {text: "\ufeff" + `{"x": "\ud83d\ude00", "y": "\ud800", "OpenIDServerSigningSettings": {"File": {"Path": "k.pem"}}}`, want: "k.pem"},
		"trailing commas, comments": {text: `{"OpenIDServerSigningSettings": {"File": {"Path": "k.pem",/**/},/**/},/**/}/**/`, want: "k.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			file, dir := writeSettings(t, tt.text)
			if tt.env != "" {
				t.Setenv(envPath, tt.env)
			}
			want := tt.want
			if !filepath.IsAbs(want) {
				want = filepath.Join(dir, want)
			}
			t.Chdir(t.TempDir()) // the working directory must not matter
			from, err := os.Getwd()
			require.NoError(t, err)
			rel, err := filepath.Rel(from, file)
			require.NoError(t, err)
			for _, file := range []string{file, rel} {
				store, err := OpenStore(t.Context(), file)
				require.NoError(t, err)
				require.IsType(t, &FileStore{}, store)
				assert.Equal(t, "file "+want, store.(*FileStore).String())
			}
		})
	}
	t.Run("environment alone", func(t *testing.T) {
		t.Setenv(envPath, abs)
		store, err := OpenStore(t.Context(), "")
		require.NoError(t, err)
		assert.Equal(t, "file "+abs, store.(*FileStore).String())
	})
}

// Relative paths in a settings file that is a link start at the link's directory.
func TestOpenStoreLinkedSettings(t *testing.T) {
	target, _ := writeSettings(t, `{}`)
	dir := t.TempDir()
	link := filepath.Join(dir, "appsettings.json")
	if err := os.Symlink(target, link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	store, err := OpenStore(t.Context(), link)
	require.NoError(t, err)
	assert.Equal(t, "file "+filepath.Join(dir, "openid-server-signing-keys", "keys.pem"), store.(*FileStore).String())
}

func TestOpenStoreRefuses(t *testing.T) {
	const secret = "hunter2"
	deep := strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65)
	for name, tt := range map[string]struct {
		text string
		env  map[string]string
		want []string
	}{
		"null section":           {text: "{\"OpenIDServerSigningSettings\": {\n\"AwsSecretManager\": null}}", want: []string{":2:", "SecretName is missing", "remove the whole section"}},
		"empty section":          {text: awsSection(""), want: []string{":1:", "SecretName is missing"}},
		"empty name":             {text: awsSection("\n\"SecretName\": \"\""), want: []string{":2:", "SecretName is empty"}},
		"number":                 {text: awsSection(`"SecretName": 42`), want: []string{"SecretName is not a string"}},
		"object":                 {text: awsSection(`"SecretName": {"a": "b"}`), want: []string{"unknown setting", "SecretName:a"}},
		"empty path":             {text: `{"OpenIDServerSigningSettings": {"File": {"Path": ""}}}`, want: []string{"Path is empty"}},
		"section with a value":   {text: `{"OpenIDServerSigningSettings": {"AwsSecretManager": "` + secret + `"}}`, want: []string{"is a section"}},
		"misspelt section":       {text: "{\"OpenIDServerSigningSettings\": {\n\"AwsSecretsManager\": {\"SecretName\": \"" + secret + "\"}}}", want: []string{":2:", "unknown setting", "AwsSecretsManager", "AwsSecretManager:SecretName"}},
		"letter that folds":      {text: `{"OpenIDServerSigningSettings": {"Awſ` + `SecretManager": {"SecretName": "a"}}}`, want: []string{"unknown setting"}},
		"misspelt environment":   {text: `{}`, env: map[string]string{envSection + "Name": secret}, want: []string{"environment variable " + envSection + "Name", "unknown setting"}},
		"empty environment":      {text: awsSection(`"SecretName": "a"`), env: map[string]string{envSecretName: ""}, want: []string{"environment variable " + envSecretName, "is empty"}},
		"is set twice":           {text: awsSection("\n\"SecretName\": \"a\",\n\"secretname\": \"" + secret + "\""), want: []string{":3:", "is set twice", ":2"}},
		"given twice by colons":  {text: "{\"OpenIDServerSigningSettings:AwsSecretManager:SecretName\": \"a\",\n\"OpenIDServerSigningSettings\": {\"AwsSecretManager\": {\"SecretName\": \"a\"}}}", want: []string{":2:", "is set twice"}},
		"bad secret name":        {text: awsSection(`"SecretName": "no spaces"`), want: []string{`"no spaces"`}},
		"lone surrogate":         {text: "{\"OpenIDServerSigningSettings\": {\"File\": {\n\"Path\": \"" + secret + `\ud800.pem"}}}`, want: []string{":2:", settingPath, "invalid UTF-8"}},
		"lone surrogate in name": {text: awsSection("\n" + `"SecretName\udfff": "a"`), want: []string{":2:", "SecretName", "invalid UTF-8"}},
		"invalid UTF-8":          {text: "{\"OpenIDServerSigningSettings:File:Path\": \"k\xff.pem\"}", want: []string{settingPath, "invalid UTF-8"}},
		"NUL":                    {text: `{"OpenIDServerSigningSettings:File:Path": "k.pem\u0000"}`, want: []string{settingPath, "invalid UTF-8"}},
		"not JSON":               {text: "{\n  \"Password\": \"" + secret + "\\q\"}", want: []string{":2:15: not valid JSON"}},
		"cut off":                {text: "{\n  \"Password\": \"" + secret, want: []string{":2:", "unexpected end"}},
		"empty file":             {text: "", want: []string{"not valid JSON"}},
		"an array":               {text: "[]", want: []string{"not a JSON object"}},
		"UTF-16":                 {text: "\xff\xfe{\x00}\x00", want: []string{"UTF-16"}},
		"UTF-32":                 {text: "\xff\xfe\x00\x00{\x00\x00\x00}\x00\x00\x00", want: []string{"UTF-32"}},
		"deep":                   {text: deep, want: []string{"64 levels"}},
		"too large":              {text: "{}" + strings.Repeat(" ", 1<<20), want: []string{"larger than 1048576 bytes"}},
		"deep and large":         {text: strings.Repeat("[", 1<<20), want: []string{"more than 50000 objects and arrays"}},
		"as deep as it gets":     {text: strings.Repeat("[", 50_000), want: []string{"unexpected end"}},
	} {
		t.Run(name, func(t *testing.T) {
			awsfake.New().Setenv(t)
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			file, _ := writeSettings(t, tt.text)
			store, err := OpenStore(t.Context(), file)
			require.Error(t, err)
			assert.True(t, store == nil, "must be nil, not a nil pointer in an interface")
			if len(tt.env) == 0 && name != "bad secret name" {
				assert.ErrorContains(t, err, file)
			}
			problem := strings.ReplaceAll(err.Error(), file, "") // its directory is named after the test
			for _, want := range tt.want {
				assert.Contains(t, problem, want)
			}
			assert.NotContains(t, problem, secret)
		})
	}
	_, err := OpenStore(t.Context(), filepath.Join(t.TempDir(), "appsettings.json"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = OpenStore(t.Context(), "")
	require.ErrorContains(t, err, envSecretName)
	require.ErrorContains(t, err, envPath)
	t.Setenv(envPath, "keys.pem")
	_, err = OpenStore(t.Context(), "")
	require.ErrorContains(t, err, "absolute path")
}

// FuzzSettings compares the parser with hujson and json/v2.
func FuzzSettings(f *testing.F) {
	for _, seed := range []string{
		`{}`,
		awsSection(`"SecretName": "a", /* c */ "Region": "b", // d` + "\n"),
		awsSection(`"Secret\u004eame": "\ud800"`),
		`{"OpenIDServerSigningSettings:File": {"Path": null}, "x": [{"y": 1e9}]}`,
		`{"OpenIDServerSigningSettings": {"File": {"Path": "k.pem"}, "file:path": "k.pem"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := appsettings.Parse(settingsSection, "appsettings.json", text)
		if err != nil {
			require.True(t, strings.HasPrefix(err.Error(), "appsettings.json:"), err)
			return
		}
		plain, err := hujson.Standardize(append(bytes.ReplaceAll(bytes.TrimPrefix(text, []byte("\ufeff")), []byte("\r"), []byte("\n")), '\n'))
		require.NoError(t, err)
		var document map[string]any
		if jsonv2.Unmarshal(plain, &document) == nil { // json/v2 rejects duplicate names
			values := map[string]string{}
			flatten(values, "", document)
			require.Equal(t, values, valuesOf(set))
		}
		if checkSettings(set) == nil && set.Value(settingSecretName) == "" {
			require.Empty(t, set.Under(settingAWS), "an AWS section must never select a file")
		}
	})
}

// FuzzEnviron: a variable has the same effect as the same setting in a file.
func FuzzEnviron(f *testing.F) {
	for _, name := range []string{settingSecretName, settingRegion, settingKMSKeyID, settingPath, settingFile, settingsSection, strings.ToUpper(settingPath), "openidserversigningsettings:x", settingPath + ":x", "PATH", "", "OpenIDServerſigningSettings:File:Path"} {
		f.Add(appsettings.EnvName(name), "value")
		f.Add(name, "")
		f.Add(appsettings.EnvName(name), " ")
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") || !utf8.ValidString(name+value) {
			return // impossible in an environment
		}
		path := strings.ReplaceAll(name, "__", ":")
		text, err := json.Marshal(map[string]string{path: value})
		require.NoError(t, err)
		inFile, err := appsettings.Parse(settingsSection, "appsettings.json", text)
		require.NoError(t, err)
		set, err := appsettings.Environ(settingsSection, []string{"HOME=/", name + "=" + value})
		require.NoError(t, err)
		require.Equal(t, valuesOf(inFile), valuesOf(set))
		require.Equal(t, checkSettings(inFile) == nil, checkSettings(set) == nil)
		_, err = appsettings.Environ(settingsSection, []string{name + "=" + value, strings.ToUpper(name) + "=hunter2"})
		lower := strings.ToLower // not EqualFold; see checkSettings
		twice := len(set) > 0 && lower(strings.ToUpper(path)) == lower(path)
		require.Equal(t, twice, err != nil)
		if twice {
			require.ErrorContains(t, err, "is set twice")
			require.NotContains(t, err.Error(), "hunter2")
		}
	})
}

func valuesOf(set appsettings.Settings) map[string]string {
	values := map[string]string{}
	for key, s := range set {
		if s.Kind == '"' {
			values[key] = s.Value
		}
	}
	return values
}

// flatten adds the strings of the section to values, by path.
func flatten(values map[string]string, path string, node any) {
	switch node := node.(type) {
	case string:
		if strings.HasPrefix(path+":", "openidserversigningsettings:") {
			values[path] = node
		}
	case map[string]any:
		for name, child := range node {
			flatten(values, strings.TrimPrefix(path+":"+strings.ToLower(name), ":"), child)
		}
	}
}
