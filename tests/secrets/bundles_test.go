package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// badBundles has a good bundle damaged as people, editors and networks do, so that an
// error about it may quote the key.
func (d *driver) badBundles(alg string, good []byte) {
	keyBlock, rest := pem.Decode(good)
	certBlock, _ := pem.Decode(rest)
	text, keyPEM, certPEM := string(good), string(pem.EncodeToMemory(keyBlock)), string(pem.EncodeToMemory(certBlock))
	secret := base64.StdEncoding.EncodeToString(keyBlock.Bytes)
	line := secret[len(secret)/4:] // where the private part is
	line = line[:min(len(line), 64)]
	asType := func(typ string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
	}
	bad := []string{
		strings.ReplaceAll(text, "\n", " "), strings.ReplaceAll(text, "\n", `\n`), strings.ReplaceAll(text, "\n", " \n x"),
		"key: |\n  " + strings.ReplaceAll(text, "\n", "\n  "),
		secret, string(keyBlock.Bytes), base64.StdEncoding.EncodeToString(good),
		"\xff\xfe" + strings.Join(strings.Split(text, ""), "\x00"), // UTF-16
		keyPEM,
		text + text,
		strings.Repeat(text, 1+fleetkey.MaxBundleSize/len(text)),
		asType("CERTIFICATE", keyBlock.Bytes),
		asType("PRIVATE KEY", certBlock.Bytes) + certPEM,
		asType("PRIVATE KEY", keyBlock.Bytes[:len(keyBlock.Bytes)-1]) + certPEM,
		asType("PRIVATE KEY", bytes.ReplaceAll(keyBlock.Bytes, []byte{4}, []byte{5})) + certPEM,
		strings.ReplaceAll(keyPEM, "PRIVATE KEY", line),
		strings.Replace(keyPEM, "-----\n", "-----\n"+line+": x\n\n", 1) + certPEM,
		strings.Replace(keyPEM, "-----\n", "-----\nProc-Type: "+line+"\n\n", 1) + certPEM,
		strings.Replace(certPEM, "-----\n", "-----\nKid: "+strings.Repeat(secret, 3)+"\n\n", 1),
		strings.Replace(certPEM, "-----\n", "-----\nKid: \""+line+"\"\n\n", 1),
		"-----" + line + "-----\n" + text,
		strings.Replace(text, "KEY-----\n", "KEY-----\n!", 1),
	}
	for _, typ := range []string{"RSA PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"} {
		bad = append(bad, asType(typ, keyBlock.Bytes)+certPEM, asType(typ, keyBlock.Bytes[20:])+certPEM, asType("PRIVATE KEY", keyBlock.Bytes[20:])+certPEM)
	}
	for cut := 1; cut < len(keyPEM)-10; cut += len(keyPEM) / 7 {
		bad = append(bad, text[cut:], text[:cut])
	}
	for i, bundle := range bad {
		cell := fleetkeytest.NewStore()
		cell.Set(good)
		s, err := fleetkey.NewSigner(d.t.Context(), cell, d.config(alg))
		require.NoError(d.t, err)
		cell.Set([]byte(bundle))
		adopting := d.config(alg)
		adopting.Adopt = cell
		_, refreshed := d.call("Signer.Refresh", s.Refresh, d.t.Context())
		_, rotated := d.call("Signer.Rotate", s.Rotate, d.t.Context())
		_, started := d.start(cell, d.config(alg))
		_, adopted := d.start(fleetkeytest.NewStore(), adopting)
		for _, err := range []error{refreshed, rotated, started, adopted} {
			require.Error(d.t, err, "bad bundle %d", i)
		}
		d.show("the status", s.Status())
		d.show("the health", s.Health())
		require.NoError(d.t, s.Close())
	}
}

// settings puts a key and a password where settings are read.
func (d *driver) settings(good []byte) {
	const password = "correct horse battery staple"
	d.secrets.Hide("a password", password)
	quoted, err := json.Marshal(string(good) + password)
	require.NoError(d.t, err)
	const section = `{"Password":"` + password + `","OpenIDServerSigningSettings":`
	for i, text := range []string{
		section + `{"File":{"Path":"keys.pem"}}}`,
		string(good),
		section + `{"Key":` + string(quoted) + `}}`,
		section + string(quoted) + `}`,
		section + `{` + string(quoted) + `:1}}`,
		section + `{"Key":` + string(quoted) + `x}}`,
		section + `{"Key":"` + string(good) + `"}}`,
	} {
		path := filepath.Join(d.t.TempDir(), "appsettings.json")
		require.NoError(d.t, os.WriteFile(path, []byte(text), 0o600))
		_, err := d.call("OpenStore", fleetkey.OpenStore, d.t.Context(), path)
		require.Equal(d.t, i == 0, err == nil, "%d", i)
	}
	_, err = d.call("NewAWSStore", fleetkey.NewAWSStore, d.t.Context(), "a name with spaces", []func(*fleetkey.AWSOptions){})
	require.Error(d.t, err)
}
