package secrets

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A fault makes a store misbehave until it is undone.
type fault func() (undo func())

// places open a store of each kind, and list its faults. Some faults put a good bundle in a
// wrong place.
var places = map[string]func(d *driver, good []byte) (fleetkey.KeyStore, map[string]fault){
	"memory": func(_ *driver, _ []byte) (fleetkey.KeyStore, map[string]fault) {
		store, faults := fleetkeytest.NewStore(), map[string]fault{}
		for _, err := range []error{fleetkey.ErrAccessDenied, fleetkey.ErrConflict, fleetkey.ErrNotExist, fleetkey.ErrUnavailable, io.ErrShortWrite} {
			ops := []fleetkeytest.Op{fleetkeytest.OpSave, fleetkeytest.OpLoad}
			if err == io.ErrShortWrite {
				ops = ops[:1]
			}
			faults[err.Error()] = func() func() {
				store.SetHook(testkit.Fail(err, ops...))
				return func() { store.SetHook(nil) }
			}
		}
		return struct{ fleetkey.KeyStore }{store}, faults // its other methods are for tests
	},
	"file": func(d *driver, good []byte) (fleetkey.KeyStore, map[string]fault) {
		path := filepath.Join(d.t.TempDir(), "keys.pem")
		options := func(o *fleetkey.FileOptions) { d.show("the file options", *o) }
		store, _ := d.call("NewFileStore", fleetkey.NewFileStore, path, []func(*fleetkey.FileOptions){options})
		replaced := func(by func()) fault {
			return func() func() {
				require.NoError(d.t, os.Rename(path, path+".away"))
				by()
				return func() {
					require.NoError(d.t, os.RemoveAll(path))
					require.NoError(d.t, os.Rename(path+".away", path))
				}
			}
		}
		return store[0].(fleetkey.KeyStore), map[string]fault{
			"directory":      replaced(func() { require.NoError(d.t, os.Mkdir(path, 0o700)) }),
			"too long":       replaced(func() { require.NoError(d.t, os.WriteFile(path, bytes.Repeat(good, 100), 0o600)) }),
			"open to others": replaced(func() { require.NoError(d.t, os.WriteFile(path, good, 0o644)) }), //nolint:gosec // the fault
			"gone":           replaced(func() {}),
		}
	},
	"AWS": func(d *driver, good []byte) (fleetkey.KeyStore, map[string]fault) {
		server, faults := awsfake.New(), map[string]fault{}
		options := func(o *fleetkey.AWSOptions) {
			o.Client = server.Client()
			d.show("the AWS options", *o)
		}
		store, err := d.call("NewAWSStore", fleetkey.NewAWSStore, d.t.Context(), "fleet/signing", []func(*fleetkey.AWSOptions){options})
		require.NoError(d.t, err)
		quoted, err := json.Marshal(string(good))
		require.NoError(d.t, err)
		for name, f := range map[string]awsfake.Fault{
			"cut off":            {Cut: true},
			"the bundle as page": {Body: string(good)},
			"the bundle as 500":  {Body: string(good), Status: 500},
			"broken JSON":        {Body: `{"SecretString":` + string(quoted) + `x`},
			"a wrong kind":       {Body: `{"SecretString":[` + string(quoted) + `]}`},
			"in a wrong place":   {Body: `{"VersionStages":` + string(quoted) + `}`},
			"as a date":          {Body: `{"CreatedDate":` + string(quoted) + `}`},
			"as bad base64":      {Body: `{"SecretBinary":` + string(quoted) + `}`},
			"denied":             {Error: &awsfake.Error{Code: "AccessDeniedException", Message: "no"}},
			"expired":            awsfake.Expired(),
		} {
			faults[name] = func() func() { server.Inject(f); return server.Heal }
		}
		return store[0].(fleetkey.KeyStore), faults
	},
}

func TestSecretsStaySecret(t *testing.T) {
	called, types := map[string]outcome{}, map[string]bool{}
	for _, alg := range algorithms {
		for _, kind := range []string{"memory", "file", "AWS"} {
			once := alg == "ES256" // since the errors of a store do not depend on the kind of key
			if kind != "memory" && !once {
				continue
			}
			t.Run(alg+" in "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDriver(t, called, types)
					good := newBundle(t, alg)
					d.learn(good)
					store, faults := places[kind](d, good)
					if !once {
						faults = nil
					}
					d.live(alg, store, faults)
					if kind == "memory" {
						d.badBundles(alg, good)
						d.settings(good)
					}
					d.check()
				})
			})
		}
	}
	t.Run("every operation", func(t *testing.T) { checkDriven(t, called, types) })
}

// live takes a signer and a verifier from their first key through rotations, revocations and
// store faults until they are closed. Every step calls every operation.
func (d *driver) live(alg string, store fleetkey.KeyStore, faults map[string]fault) {
	cfg, old := d.config(alg), fleetkeytest.NewStore()
	old.Set(newBundle(d.t, alg))
	cfg.Adopt = spy{old, d}
	cfg.Former = []fleetkey.Former{{Certificate: fleetkeytest.NewSigner(d.t, fleetkey.Config{Algorithm: "ES384"}).SigningKey().Certificate, KeyID: "another"}}
	d.show("a former system", cfg.Former[0])
	_, _, err := store.Load(d.t.Context())
	d.show("the error of an absent bundle", err)
	d.store = store
	d.signer, err = d.start(spy{store, d}, cfg)
	require.NoError(d.t, err)
	service := d.verifier()
	step := func() { d.walk(store, d.signer, d.signer.Verifier(), service) }
	for _, later := range []time.Duration{0, 2 * time.Hour, 26 * time.Hour, 31 * testkit.Day} {
		time.Sleep(later)
		step()
	}
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		undo := faults[name]()
		step()
		if second, err := d.start(spy{store, d}, d.config(alg)); err == nil {
			require.NoError(d.t, second.Close())
		}
		undo()
	}
	require.NoError(d.t, errors.Join(d.signer.Close(), service.Close()))
	step()
}

// config returns the configuration of a signer that logs everything.
func (d *driver) config(alg string) fleetkey.Config {
	cfg := testkit.Lazily(testkit.Rotating())
	cfg.Algorithm, cfg.Logger = alg, d.logger
	return cfg
}

func (d *driver) start(store fleetkey.KeyStore, cfg fleetkey.Config) (*fleetkey.Signer, error) {
	results, err := d.call("NewSigner", fleetkey.NewSigner, d.t.Context(), store, cfg)
	return results[0].(*fleetkey.Signer), err
}

// verifier starts a service that verifies tokens and has no private keys.
func (d *driver) verifier() *fleetkey.Verifier {
	issuer := testkit.NewProvider()
	issuer.Serve(testkit.Issuer+fleetkey.DiscoveryPath, d.signer.Discovery(nil).ServeHTTP)
	issuer.Serve(testkit.Issuer+fleetkey.JWKSPath, d.signer.JWKS().ServeHTTP)
	cfg := issuer.Config(func(c *fleetkey.VerifierConfig) {
		c.Issuer, c.Audience, c.Logger = testkit.Issuer, []string{testkit.Issuer}, d.logger
	})
	results, err := d.call("NewVerifier", fleetkey.NewVerifier, d.t.Context(), cfg)
	require.NoError(d.t, err)
	_, err = d.call("NewVerifier", fleetkey.NewVerifier, d.t.Context(), fleetkey.VerifierConfig{Issuer: "x"})
	require.Error(d.t, err)
	d.call("NewContext", fleetkey.NewContext, d.t.Context(), &fleetkey.Token{})
	return results[0].(*fleetkey.Verifier)
}

// A spy wraps a signer's store and learns every key that passes.
type spy struct {
	fleetkey.KeyStore
	d *driver
}

func (s spy) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	bundle, v, err := s.KeyStore.Load(ctx)
	s.d.learn(bundle)
	return bundle, v, err
}

func (s spy) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	s.d.learn(bundle)
	return s.KeyStore.Save(ctx, bundle, prev)
}

// badBundles damages a good bundle as people, editors and networks do, so that an
// error about it could quote the key.
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
