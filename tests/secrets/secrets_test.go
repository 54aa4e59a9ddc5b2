package secrets

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
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

// TestMain starts Go's random generator outside of any synctest bubble: in FIPS 140
// mode it needs a clock that jitters.
func TestMain(m *testing.M) {
	rand.Text()
	os.Exit(m.Run())
}

// A place is a store to drive, and what can happen to it.
type place struct {
	store  fleetkey.KeyStore
	faults map[string]func() (undo func())
}

// places open a store of each kind. Some faults show a good bundle where none belongs.
var places = map[string]func(t *testing.T, d *driver, good []byte) place{
	"memory": func(t *testing.T, d *driver, _ []byte) place {
		store := fleetkeytest.NewStore()
		p := place{store, map[string]func() func(){}}
		fault := func(err error, ops ...fleetkeytest.Op) {
			p.faults[fmt.Sprint(err, ops)] = func() func() {
				_, _ = d.do(t, store, "SetHook", testkit.Fail(err, ops...))
				return func() { store.SetHook(nil) }
			}
		}
		for _, err := range []error{fleetkey.ErrAccessDenied, fleetkey.ErrConflict, fleetkey.ErrNotExist, fleetkey.ErrUnavailable, io.ErrUnexpectedEOF} {
			fault(err, fleetkeytest.OpLoad, fleetkeytest.OpSave)
		}
		fault(io.ErrShortWrite, fleetkeytest.OpSave)
		return p
	},
	"file": func(t *testing.T, d *driver, good []byte) place {
		path := filepath.Join(t.TempDir(), "keys.pem")
		store, _ := d.call(t, "NewFileStore", reflect.ValueOf(fleetkey.NewFileStore), path)
		replaced := func(by func()) func() func() {
			return func() func() {
				require.NoError(t, os.Rename(path, path+".away"))
				by()
				return func() {
					require.NoError(t, os.RemoveAll(path))
					require.NoError(t, os.Rename(path+".away", path))
				}
			}
		}
		return place{store.(fleetkey.KeyStore), map[string]func() func(){
			"directory":      replaced(func() { require.NoError(t, os.Mkdir(path, 0o700)) }),
			"too long":       replaced(func() { require.NoError(t, os.WriteFile(path, bytes.Repeat(good, 100), 0o600)) }),
			"open to others": replaced(func() { require.NoError(t, os.WriteFile(path, good, 0o644)) }), //nolint:gosec // the fault
			"gone":           replaced(func() {}),
		}}
	},
	"AWS": func(t *testing.T, d *driver, good []byte) place {
		server := awsfake.New()
		store, err := d.call(t, "NewAWSStore", reflect.ValueOf(fleetkey.NewAWSStore), "fleet/signing", func(o *fleetkey.AWSOptions) {
			o.Client = server.Client()
			d.show(t, "the AWS options", *o)
		})
		require.NoError(t, err)
		p := place{store.(fleetkey.KeyStore), map[string]func() func(){}}
		quoted, err := json.Marshal(string(good))
		require.NoError(t, err)
		for name, fault := range map[string]awsfake.Fault{
			"cut off":            {Cut: true},
			"the bundle as page": {Body: string(good)},
			"the bundle as 500":  {Body: string(good), Status: 500},
			"broken JSON":        {Body: `{"SecretString":` + string(quoted) + `x`},
			"a wrong kind":       {Body: `{"SecretString":[` + string(quoted) + `]}`},
			"in a wrong place":   {Body: `{"VersionStages":` + string(quoted) + `}`},
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
	all := newDriver()
	for _, alg := range algorithms {
		for kind, open := range places {
			if kind != "memory" && alg != "ES256" {
				continue // the errors of a store do not depend on the kind of key
			}
			t.Run(alg+" in "+kind, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDriver()
					d.called, d.types = all.called, all.types
					good := newBundle(t, alg)
					d.learn(good)
					p := open(t, d, good)
					s := d.life(t, alg, p.store)
					d.tokens(t, s)
					d.failures(t, alg, p, s)
					_, err := d.do(t, s, "Close")
					require.NoError(t, err)
					for _, method := range []string{"Refresh", "Rotate"} {
						_, err := d.do(t, s, method)
						require.ErrorIs(t, err, fleetkey.ErrClosed)
					}
					if kind == "memory" {
						d.badBundles(t, alg, good)
						d.operators(t, p.store.(*fleetkeytest.Store))
						d.settings(t, good)
					}
					d.check(t)
				})
			})
		}
	}
	t.Run("every operation", all.checkDriven)
}

// life leads a signer from its first key through rotation, trust and revocation.
func (d *driver) life(t *testing.T, alg string, store fleetkey.KeyStore) *fleetkey.Signer {
	cfg := d.config(alg)
	old := fleetkeytest.NewStore()
	old.Set(newBundle(t, alg))
	cfg.Adopt = spy{old, d}
	_, err := d.do(t, store, "Load")
	require.ErrorIs(t, err, fleetkey.ErrNotExist)
	started, err := d.call(t, "NewSigner", reflect.ValueOf(fleetkey.NewSigner), spy{store, d}, cfg)
	require.NoError(t, err)
	s := started.(*fleetkey.Signer)
	first := s.SigningKey()
	other := fleetkeytest.NewSigner(t, fleetkey.Config{Algorithm: "ES384"}).SigningKey().Certificate
	for _, step := range []struct {
		method string
		args   []any
		then   time.Duration
	}{
		{"Rotate", nil, 26 * time.Hour}, {"Refresh", nil, 0}, {"Trust", []any{other, "another"}, 0},
		{"Revoke", []any{first.KeyID}, 60 * testkit.Day}, {"Refresh", nil, 0}, {"Rotate", nil, 0},
	} {
		_, err := d.do(t, s, step.method, step.args...)
		require.NoError(t, err, step.method)
		d.answers(t, s)
		time.Sleep(step.then)
	}
	_, err = d.do(t, s, "Revoke", "unknown")
	require.Error(t, err)
	_, err = d.do(t, s, "Trust", first.Certificate, "\n")
	require.Error(t, err)
	return s
}

// answers collects what a signer says of itself.
func (d *driver) answers(t *testing.T, s *fleetkey.Signer) {
	for _, method := range []string{"Health", "JWKS", "Status", "PublicKeys", "SigningKey"} {
		_, _ = d.do(t, s, method)
	}
	signing := s.SigningKey()
	d.show(t, "a pointer to the signing key", &signing)
	_, _ = d.do(t, s, "Discovery", map[string]any{"x": signing})
}

// A failingKey fails to encode with an error that quotes it.
type failingKey struct{ fleetkey.SigningKey }

func (k failingKey) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("cannot encode %+v", k.SigningKey)
}

// tokens issues and verifies tokens, rightly and wrongly.
func (d *driver) tokens(t *testing.T, s *fleetkey.Signer) {
	key := s.SigningKey()
	carries := map[string]any{"key": key}
	issued, err := d.do(t, s, "Issue", fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: "read", Extra: carries})
	require.NoError(t, err)
	good := issued.(string)
	signed, err := d.do(t, s, "Sign", "JWT", carries)
	require.NoError(t, err)
	for _, extra := range []map[string]any{{"x": func() {}}, {"x": failingKey{key}}, {"EXP": key}} {
		_, err := d.do(t, s, "Issue", fleetkey.Claims{Subject: "alice", ClientID: "web", Extra: extra})
		require.Error(t, err)
		_, err = d.do(t, s, "Sign", "JWT", extra)
		require.True(t, err != nil || extra["EXP"] != nil)
	}
	verified, err := d.do(t, s, "Verify", good)
	require.NoError(t, err)
	_, _ = d.do(t, verified, "HasScope", "read")
	for _, into := range []any{new(map[string]any), new(int)} {
		_, _ = d.do(t, verified, "Decode", into)
	}
	_, _ = jwt.Parse(good, func(token *jwt.Token) (any, error) { return d.do(t, s, "Keyfunc", token) })
	_, _ = d.do(t, s, "Keyfunc", &jwt.Token{Header: map[string]any{"kid": "x"}})

	parts := strings.Split(good, ".")
	read, _ := d.do(t, s, "Require", "read")
	write, _ := d.do(t, s, "Require", "write")
	inner := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = d.call(t, "FromContext", reflect.ValueOf(fleetkey.FromContext), r.Context())
	})
	for _, token := range []string{
		good, good + ".", "Bearer " + good, good + "\n", parts[0] + "." + parts[1] + ".AAAA" + parts[2][4:], "e30." + parts[1] + "." + parts[2], parts[2] + "." + parts[1] + "." + parts[0],
		good + good, parts[0] + "." + parts[2] + "." + parts[2], signed.(string), strings.Replace(good, parts[0], "eyJhbGciOiJub25lIiwia2lkIjoieCIsInR5cCI6ImF0K2p3dCJ9", 1),
	} {
		_, err := d.do(t, s, "Verify", token)
		require.Equal(t, token == good, err == nil)
		for _, middleware := range []any{read, write} {
			d.ask(t, "Require", middleware.(func(http.Handler) http.Handler)(inner), "Authorization", "Bearer "+token)
		}
	}
	time.Sleep(2 * time.Hour)
	_, err = d.do(t, s, "Verify", good)
	require.ErrorIs(t, err, fleetkey.ErrExpired)
}

// failures lets the store fail in every way, while a signer uses it and at a start.
func (d *driver) failures(t *testing.T, alg string, p place, s *fleetkey.Signer) {
	loaded, err := d.do(t, p.store, "Load")
	require.NoError(t, err)
	bundle := loaded.([]byte)
	_, version, err := p.store.Load(t.Context())
	require.NoError(t, err)
	for _, prev := range []fleetkey.Version{"", "another"} {
		_, err := d.do(t, p.store, "Save", bundle, prev)
		require.Error(t, err)
	}
	_, err = d.do(t, p.store, "Save", bytes.Repeat(bundle, 100), version)
	require.Error(t, err)
	for name, happen := range p.faults {
		undo, failed := happen(), 0
		kid := s.SigningKey().KeyID
		for _, call := range []func() (any, error){
			func() (any, error) { return d.do(t, p.store, "Load") },
			func() (any, error) { return d.do(t, p.store, "Save", append(bundle, '\n'), version) },
			func() (any, error) { return d.do(t, s, "Refresh") },
			func() (any, error) { return d.do(t, s, "Rotate") },
			func() (any, error) { return d.do(t, s, "Revoke", kid) },
		} {
			if _, err := call(); err != nil {
				failed++
			}
			d.answers(t, s)
		}
		if second, err := d.call(t, "NewSigner", reflect.ValueOf(fleetkey.NewSigner), spy{p.store, d}, d.config(alg)); err == nil {
			require.NoError(t, second.(*fleetkey.Signer).Close())
		}
		require.Positive(t, failed, name)
		undo()
	}
	current, version, err := p.store.Load(t.Context())
	require.NoError(t, err)
	_, err = d.do(t, p.store, "Save", append(current, '\n'), version)
	require.NoError(t, err)
}
