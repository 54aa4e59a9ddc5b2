package secrets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A place is a store to drive, and what can happen to it.
type place struct {
	store  fleetkey.KeyStore
	faults map[string]func() (undo func())
}

// places open a store of each kind. Some faults show a good bundle where none belongs.
var places = map[string]func(d *driver, good []byte) place{
	"memory": func(d *driver, _ []byte) place {
		store := fleetkeytest.NewStore()
		p := place{store, map[string]func() func(){}}
		for _, err := range []error{fleetkey.ErrAccessDenied, fleetkey.ErrConflict, fleetkey.ErrNotExist, fleetkey.ErrUnavailable, io.ErrShortWrite} {
			ops := []fleetkeytest.Op{fleetkeytest.OpSave, fleetkeytest.OpLoad}
			if err == io.ErrShortWrite {
				ops = ops[:1]
			}
			p.faults[err.Error()] = func() func() {
				d.must(store, "SetHook", testkit.Fail(err, ops...))
				return func() { store.SetHook(nil) }
			}
		}
		return p
	},
	"file": func(d *driver, good []byte) place {
		path := filepath.Join(d.t.TempDir(), "keys.pem")
		store, _ := d.call("NewFileStore", fleetkey.NewFileStore, path, func(o *fleetkey.FileOptions) { d.show("the file options", *o) })
		d.must(store, "ReadOnly")
		replaced := func(by func()) func() func() {
			return func() func() {
				require.NoError(d.t, os.Rename(path, path+".away"))
				by()
				return func() {
					require.NoError(d.t, os.RemoveAll(path))
					require.NoError(d.t, os.Rename(path+".away", path))
				}
			}
		}
		return place{store.(fleetkey.KeyStore), map[string]func() func(){
			"directory":      replaced(func() { require.NoError(d.t, os.Mkdir(path, 0o700)) }),
			"too long":       replaced(func() { require.NoError(d.t, os.WriteFile(path, bytes.Repeat(good, 100), 0o600)) }),
			"open to others": replaced(func() { require.NoError(d.t, os.WriteFile(path, good, 0o644)) }), //nolint:gosec // the fault
			"gone":           replaced(func() {}),
		}}
	},
	"AWS": func(d *driver, good []byte) place {
		server := awsfake.New()
		store, err := d.call("NewAWSStore", fleetkey.NewAWSStore, "fleet/signing", func(o *fleetkey.AWSOptions) {
			o.Client = server.Client()
			d.show("the AWS options", *o)
		})
		require.NoError(d.t, err)
		p := place{store.(fleetkey.KeyStore), map[string]func() func(){}}
		quoted, err := json.Marshal(string(good))
		require.NoError(d.t, err)
		for name, fault := range map[string]awsfake.Fault{
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
			p.faults[name] = func() func() { server.Inject(fault); return server.Heal }
		}
		return p
	},
}

func TestSecretsStaySecret(t *testing.T) {
	called, types := map[string][2]bool{}, map[string]reflect.Type{}
	for _, alg := range algorithms {
		for _, kind := range []string{"memory", "file", "AWS"} {
			if kind != "memory" && alg != "ES256" {
				continue // the errors of a store do not depend on the kind of key
			}
			t.Run(alg+" in "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDriver(t, called, types)
					good := newBundle(t, alg)
					d.learn(good)
					p := places[kind](d, good)
					s := d.life(alg, p.store)
					d.tokens(s)
					d.failures(alg, p, s)
					d.must(s, "Close")
					d.fails(s, "Refresh")
					d.fails(s, "Rotate")
					if store, ok := p.store.(*fleetkeytest.Store); ok {
						content, v := store.Content()
						for _, call := range [][]any{{"Set", content}, {"Delete"}, {"RollBack", v}, {"Open"}, {"Content"}, {"Loads"}, {"Saves"}, {"String"}} {
							d.must(store, call[0].(string), call[1:]...)
						}
						d.badBundles(alg, good)
						d.settings(good)
					}
					d.check()
				})
			})
		}
	}
	t.Run("every operation", func(t *testing.T) { newDriver(t, called, types).checkDriven() })
}

// life leads a signer from its first key through rotation and revocation.
func (d *driver) life(alg string, store fleetkey.KeyStore) *fleetkey.Signer {
	cfg, old := d.config(alg), fleetkeytest.NewStore()
	old.Set(newBundle(d.t, alg))
	cfg.Adopt = spy{old, d}
	cfg.Former = []fleetkey.Former{{Certificate: fleetkeytest.NewSigner(d.t, fleetkey.Config{Algorithm: "ES384"}).SigningKey().Certificate, KeyID: "another"}}
	d.show("a former system", cfg.Former[0])
	d.fails(store, "Load")
	s, err := d.start(spy{store, d}, cfg)
	require.NoError(d.t, err)
	first := s.SigningKey()
	for _, step := range []struct {
		then time.Duration // after the answers
		call []any
	}{
		{26 * time.Hour, []any{"Rotate"}}, {0, []any{"Refresh"}},
		{31 * testkit.Day, []any{"Revoke", first.KeyID}}, {0, []any{"Refresh"}}, {0, []any{"RevokeAll"}}, {0, []any{"Rotate"}},
	} {
		d.must(s, step.call[0].(string), step.call[1:]...)
		d.answers(s)
		time.Sleep(step.then)
	}
	d.fails(s, "Revoke", "unknown")
	return s
}

// answers collects what a signer says of itself.
func (d *driver) answers(s *fleetkey.Signer) {
	for _, method := range []string{"Health", "JWKS", "Status", "PublicKeys"} {
		d.must(s, method)
	}
	key := d.must(s, "SigningKey").(fleetkey.SigningKey)
	d.show("a pointer to the signing key", &key)
	d.must(s, "Discovery", map[string]any{"x": key})
}

// A failingKey fails to encode with an error that quotes it.
type failingKey struct{ fleetkey.SigningKey }

func (k failingKey) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("cannot encode %+v", k.SigningKey)
}

// tokens issues and verifies tokens, rightly and wrongly.
func (d *driver) tokens(s *fleetkey.Signer) {
	key := s.SigningKey()
	claims := fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: "read", Extra: map[string]any{"key": key}}
	good := d.must(s, "Issue", claims).(string)
	signed := d.must(s, "Sign", "JWT", claims.Extra).(string)
	for _, extra := range []map[string]any{{"x": func() {}}, {"x": failingKey{key}}, {"exp": key}} {
		claims.Extra = extra
		d.fails(s, "Issue", claims)
		d.fails(s, "Sign", "JWT", extra)
	}
	verified := d.must(s, "Verify", good)
	d.must(verified, "HasScope", "read")
	d.must(verified, "Decode", new(map[string]any))
	d.fails(verified, "Decode", new(int))
	_, err := jwt.Parse(good, func(token *jwt.Token) (any, error) { return d.must(s, "Keyfunc", token), nil })
	require.NoError(d.t, err)
	d.fails(s, "Keyfunc", &jwt.Token{Header: map[string]any{"kid": "x"}})

	parts := strings.Split(good, ".")
	inner := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = d.call("FromContext", fleetkey.FromContext, r.Context())
	})
	read := d.must(s, "Require", "read").(func(http.Handler) http.Handler)(inner)
	write := d.must(s, "Require", "write").(func(http.Handler) http.Handler)(inner)
	for _, token := range []string{
		good + ".", "Bearer " + good, good + "\n", parts[0] + "." + parts[1] + ".AAAA" + parts[2][4:], "e30." + parts[1] + "." + parts[2], parts[2] + "." + parts[1] + "." + parts[0],
		good + good, parts[0] + "." + parts[2] + "." + parts[2], signed, strings.Replace(good, parts[0], "eyJhbGciOiJub25lIiwia2lkIjoieCIsInR5cCI6ImF0K2p3dCJ9", 1),
	} {
		d.fails(s, "Verify", token)
		d.ask("Require", read, "Authorization", "Bearer "+token)
	}
	d.ask("Require", read, "Authorization", "Bearer "+good)
	d.ask("Require", write, "Authorization", "Bearer "+good)
	v := d.must(s, "Verifier").(*fleetkey.Verifier)
	d.must(v, "Verify", good)
	_, err = jwt.Parse(good, func(token *jwt.Token) (any, error) { return d.must(v, "Keyfunc", token), nil })
	require.NoError(d.t, err)
	d.fails(v, "Keyfunc", &jwt.Token{Header: map[string]any{"kid": "x"}})
	d.ask("Verifier.Require", d.must(v, "Require").(func(http.Handler) http.Handler)(inner), "Authorization", "Bearer "+good+".")
	d.ask("Verifier.Health", d.must(v, "Health").(http.Handler))
	for _, method := range []string{"PublicKeys", "Status", "Refresh", "Close"} {
		d.must(v, method)
	}
	other := d.verifies(s, good)
	time.Sleep(2 * time.Hour)
	d.fails(s, "Verify", good) // it has expired
	d.fails(v, "Verify", good)
	d.fails(other, "Verify", good)
}

// A published signer answers requests with what it publishes.
type published struct{ *fleetkey.Signer }

func (p published) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.URL.Path == fleetkey.JWKSPath {
		p.JWKS().ServeHTTP(w, r)
	} else {
		p.Discovery(nil).ServeHTTP(w, r)
	}
	return w.Result(), nil
}

// verifies lets a service without private keys verify a token.
func (d *driver) verifies(s *fleetkey.Signer, good string) *fleetkey.Verifier {
	cfg := fleetkey.VerifierConfig{Issuer: testkit.Issuer, Audience: []string{testkit.Issuer}, HTTPClient: &http.Client{Transport: published{s}}, Logger: d.logger}
	result, err := d.call("NewVerifier", fleetkey.NewVerifier, cfg)
	require.NoError(d.t, err)
	v := result.(*fleetkey.Verifier)
	d.t.Cleanup(func() { d.must(v, "Close") })
	_, err = d.call("NewContext", fleetkey.NewContext, d.t.Context(), d.must(v, "Verify", good))
	require.NoError(d.t, err)
	_, err = d.call("NewVerifier", fleetkey.NewVerifier, fleetkey.VerifierConfig{Issuer: "x"})
	require.Error(d.t, err)
	return v
}

// failures lets the store fail in every way, while a signer uses it and at a start.
func (d *driver) failures(alg string, p place, s *fleetkey.Signer) {
	bundle := d.must(p.store, "Load").([]byte)
	_, version, err := p.store.Load(d.t.Context())
	require.NoError(d.t, err)
	d.fails(p.store, "Save", bundle, fleetkey.Version(""))
	d.fails(p.store, "Save", bundle, fleetkey.Version("another"))
	d.fails(p.store, "Save", bytes.Repeat(bundle, 100), version)
	d.must(p.store, "Save", bundle, version)
	for _, name := range slices.Sorted(maps.Keys(p.faults)) {
		undo, kid := p.faults[name](), s.SigningKey().KeyID
		_, loading := d.do(p.store, "Load")
		_, saving := d.do(p.store, "Save", bundle, version)
		require.Error(d.t, errors.Join(loading, saving), name)
		for _, call := range [][]any{{"Refresh"}, {"Rotate"}, {"Revoke", kid}, {"RevokeAll"}} {
			_, _ = d.do(s.Verifier(), "Refresh")
			_, _ = d.do(s, call[0].(string), call[1:]...)
			d.answers(s)
		}
		if second, err := d.start(spy{p.store, d}, d.config(alg)); err == nil {
			require.NoError(d.t, second.Close())
		}
		undo()
	}
}
