package fleetkey_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// This file leads signers and stores through their lives and through every error
// it can think of, and looks for keys and tokens in all that others may see of
// it: logs, errors, HTTP answers, panics, and values printed or encoded.

// A witness sees all that happens.
type witness struct {
	*detector
	log    *logBuffer
	logger *slog.Logger
	clock  atomic.Int64    // seconds since noon
	types  map[string]bool // of which a value was printed
}

func newWitness() *witness {
	w := &witness{detector: newDetector(), log: &logBuffer{}, types: map[string]bool{}}
	debug := &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}
	w.logger = slog.New(slog.NewMultiHandler(slog.NewJSONHandler(w.log, debug), slog.NewTextHandler(w.log, debug)))
	return w
}

func (w *witness) now() time.Time {
	return noon.Add(time.Duration(w.clock.Load()) * time.Second)
}

func (w *witness) config(alg string) fleetkey.Config {
	return testConfig(func(c *fleetkey.Config) {
		c.Algorithm, c.Logger = alg, w.logger
	})
}

// print collects every way to show a value.
func (w *witness) print(name string, v any) {
	w.types[strings.TrimPrefix(reflect.TypeOf(v).String(), "*")] = true
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%T"} {
		w.add(name+" as "+format, fmt.Sprintf(format, v))
	}
	if encoded, err := json.Marshal(v); err != nil {
		w.add(name+" as JSON", err)
	} else {
		w.add(name+" as JSON", string(encoded))
	}
	w.logger.Info("printed", "value", v, "group", slog.GroupValue(slog.Any("value", v)))
}

// failed collects an error, which has to be one.
func (w *witness) failed(t *testing.T, what string, err error) {
	t.Helper()
	require.Error(t, err, what)
	for e := err; e != nil; e = errors.Unwrap(e) {
		w.print("the error of "+what, e)
	}
}

func (w *witness) answers(t *testing.T, s *fleetkey.Signer) {
	t.Helper()
	for name, h := range map[string]http.Handler{"health": s.Health(), "JWKS": s.JWKS(), "discovery": s.Discovery(nil)} {
		answer := ask(h, "GET")
		w.add(name, string(body(t, answer)), answer.Header)
	}
	w.print("the status", s.Status())
	w.add("warnings", s.Status().Warnings())
	w.print("the public keys", s.PublicKeys())
}

// parts prints what is within the status and the list of public keys.
func (w *witness) parts(s *fleetkey.Signer) {
	status := s.Status()
	w.print("a pointer to the status", &status)
	w.print("the counters", status.Counters)
	for _, k := range status.Keys {
		w.print("a key of the status", k)
		w.print("its role", k.Role)
	}
	for _, k := range s.PublicKeys() {
		w.print("a public key", k)
	}
}

// panics collects what f panics with.
func (w *witness) panics(t *testing.T, what string, f func()) {
	t.Helper()
	defer func() {
		p := recover()
		require.NotNil(t, p, what)
		w.add("the panic of "+what, p)
	}()
	f()
}

func TestSecretsStaySecret(t *testing.T) {
	for _, alg := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			w := newWitness()
			good := w.life(t, alg)
			w.tokens(t, alg, good)
			w.failures(t, alg, good)
			for name, bundle := range badBundles(t, good) {
				w.badBundle(t, alg, name, good, bundle)
			}
			w.files(t, good)
			w.settings(t, good)
			w.aws(t, alg, good)
			w.add("the log", w.log.String())
			require.Greater(t, len(w.log.String()), 10_000)
			for _, name := range exportedTypes(t) {
				require.True(t, w.types["fleetkey."+name], "no %s was printed", name)
			}
			w.check(t)
		})
	}
}

// life leads a signer from its first key through rotation, trust, revocation and
// adoption, and returns the last bundle.
func (w *witness) life(t *testing.T, alg string) []byte {
	cell := fleetkeytest.NewStore()
	store := spyStore{cell, w.detector}
	cfg := w.config(alg)
	cfg.Rotation.Every = 30 * 24 * time.Hour
	adopted := fleetkeytest.NewStore()
	old := newParty(t, alg)
	oldBundle, _ := old.store.Content()
	adopted.Set(oldBundle)
	cfg.Adopt = spyStore{adopted, w.detector}

	s, err := fleetkey.NewSigner(by(w.now), store, cfg)
	require.NoError(t, err)
	first := s.SigningKey()
	for _, step := range []func() error{
		func() error { return s.Rotate(t.Context()) },
		func() error { w.clock.Add(26 * 3600); return s.Refresh(t.Context()) },
		func() error {
			other, err := x509.ParseCertificate(certificateOf(t, newParty(t, "ES256")))
			require.NoError(t, err)
			return s.Trust(t.Context(), other, "another")
		},
		func() error { return s.Revoke(t.Context(), first.KeyID) },
		func() error { w.clock.Add(60 * 24 * 3600); return s.Refresh(t.Context()) },
		func() error { return s.Rotate(t.Context()) },
	} {
		require.NoError(t, step())
		w.answers(t, s)
		w.parts(s)
		w.print("the signing key", s.SigningKey())
		signing := s.SigningKey()
		w.print("a pointer to the signing key", &signing)
		w.print("a struct with the signing key", struct{ Key fleetkey.SigningKey }{signing})
		w.print("a list of signing keys", []fleetkey.SigningKey{signing})
	}
	w.failed(t, "Revoke", s.Revoke(t.Context(), "unknown"))
	w.failed(t, "Trust", s.Trust(t.Context(), first.Certificate, "\n"))
	w.print("the signer", s)
	require.NoError(t, s.Close())
	w.failed(t, "Refresh after Close", s.Refresh(t.Context()))
	w.print("the store", cell)
	w.print("the configuration", cfg)
	w.print("its policy", cfg.Rotation)
	w.panics(t, "Discovery", func() { s.Discovery(map[string]any{"issuer": s.SigningKey()}) })
	w.panics(t, "Discovery", func() { s.Discovery(map[string]any{"x": func() {}}) })
	answer := ask(s.Discovery(map[string]any{"x": s.SigningKey()}), "GET")
	w.add("discovery with a key in it", string(body(t, answer)))
	bundle, _ := cell.Content()
	return bundle
}

func certificateOf(t *testing.T, p *party) []byte { return p.SigningKey().Certificate.Raw }

// tokens issues and verifies, rightly and wrongly.
func (w *witness) tokens(t *testing.T, alg string, good []byte) {
	store := fleetkeytest.NewStore()
	store.Set(good)
	p := openPartyBy(t, w.now, store, w.config(alg))
	claims := fleetkey.Claims{Subject: "alice", Scope: "read", Extra: map[string]any{"key": p.SigningKey()}}
	w.print("claims", claims)
	token, err := p.Issue(t.Context(), claims)
	require.NoError(t, err)
	w.hideToken(token)
	verified, err := p.Verify(t.Context(), token)
	require.NoError(t, err)
	w.print("a verified token", verified)
	carried, err := p.Sign(t.Context(), "JWT", map[string]any{"key": p.SigningKey()})
	require.NoError(t, err)
	w.add("a token with a key in it", string(segment(t, carried, 1)))

	parts := strings.Split(token, ".")
	other := "A" // one character of 64 is that one already
	if parts[2][0] == 'A' {
		other = "B"
	}
	for i, bad := range []string{
		token + ".", "Bearer " + token, token + "\n", parts[0] + "." + parts[1] + "." + other + parts[2][1:], b64(`{"kid":1}`) + "." + parts[1] + "." + parts[2],
		parts[2] + "." + parts[1] + "." + parts[0], token + token, parts[0] + "." + parts[2] + "." + parts[2], b64(`{"alg":"none","kid":"x","typ":"at+jwt"}`) + "." + parts[1] + "." + parts[2],
	} {
		_, err := p.Verify(t.Context(), bad)
		w.failed(t, fmt.Sprintf("Verify #%d", i), err)
		answer := ask(p.Require("read")(nil), "GET", "Authorization", "Bearer "+bad)
		w.add("the middleware", string(body(t, answer)), answer.Header)
	}
	answer := ask(p.Require("write")(nil), "GET", "Authorization", "Bearer "+token)
	w.add("the middleware", string(body(t, answer)), answer.Header)
	w.clock.Add(2 * 3600)
	_, err = p.Verify(t.Context(), token)
	w.failed(t, "Verify of an expired token", err)
	for _, c := range []fleetkey.Claims{{}, {Subject: "x", Extra: map[string]any{"x": func() {}}}, {Subject: "x", Extra: map[string]any{"x": failingKey{p.SigningKey()}}}, {Subject: "x", Extra: map[string]any{"EXP": p.SigningKey()}}} {
		_, err = p.Issue(t.Context(), c)
		w.failed(t, "Issue", err)
	}
}

// A failingKey fails to encode with an error that quotes it.
type failingKey struct{ fleetkey.SigningKey }

func (k failingKey) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("cannot encode %+v", k.SigningKey)
}

// failures lets the store fail in every way, at the start and later.
func (w *witness) failures(t *testing.T, alg string, good []byte) {
	for _, fault := range []error{fleetkey.ErrAccessDenied, fleetkey.ErrConflict, fleetkey.ErrNotExist, fleetkey.ErrUnavailable, io.ErrUnexpectedEOF} {
		cell := fleetkeytest.NewStore()
		cell.Set(good)
		s, err := fleetkey.NewSigner(by(w.now), spyStore{cell, w.detector}, w.config(alg))
		require.NoError(t, err)
		cell.SetHook(func(c fleetkeytest.Call) fleetkeytest.Fault {
			if c.Op == fleetkeytest.OpSave {
				return fleetkeytest.Fault{Err: fault}
			}
			return fleetkeytest.Fault{}
		})
		kid := s.SigningKey().KeyID
		if fault != fleetkey.ErrConflict { // which is tried again for seconds
			w.failed(t, "Revoke without saving", s.Revoke(t.Context(), kid))
		}
		cell.SetHook(func(fleetkeytest.Call) fleetkeytest.Fault { return fleetkeytest.Fault{Err: fault} })
		w.failed(t, "Refresh without loading", s.Refresh(t.Context()))
		w.failed(t, "Revoke without loading", s.Revoke(t.Context(), kid))
		w.answers(t, s)
		require.NoError(t, s.Close())
		if fault != fleetkey.ErrConflict && fault != fleetkey.ErrNotExist {
			ctx, cancel := context.WithTimeout(by(w.now), time.Millisecond)
			_, err = fleetkey.NewSigner(ctx, spyStore{cell, w.detector}, w.config(alg))
			cancel()
			w.failed(t, "NewSigner", err)
		}
	}
}

func (w *witness) files(t *testing.T, good []byte) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.pem")
	store := fleetkey.NewFileStore(path)
	v, err := store.Save(t.Context(), good, "")
	require.NoError(t, err)
	w.print("the version", v)
	_, err = store.Save(t.Context(), good, "")
	w.failed(t, "Save over what is there", err)
	_, err = store.Save(t.Context(), good, fleetkey.Version(strings.Repeat("0", 64)))
	w.failed(t, "Save over another version", err)
	_, err = store.Save(t.Context(), bytes.Repeat(good, 100), v)
	w.failed(t, "Save of too much", err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "long.pem"), bytes.Repeat(good, 100), 0o600))
	_, _, err = fleetkey.NewFileStore(filepath.Join(dir, "long.pem")).Load(t.Context())
	w.failed(t, "Load of too much", err)
	_, _, err = fleetkey.NewFileStore(dir).Load(t.Context())
	w.failed(t, "Load of a directory", err)
	_, err = fleetkey.NewFileStore(filepath.Join(path, "x")).Save(t.Context(), good, "")
	w.failed(t, "Save into a file", err)
	w.print("the file store", store)
	w.print("the file store's fields", *store)
}

// settings puts a key where settings are read.
func (w *witness) settings(t *testing.T, good []byte) {
	quoted, err := json.Marshal(string(good))
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "appsettings.json")
	for name, text := range map[string]string{
		"the bundle itself":  string(good),
		"an unknown setting": `{"OpenIDServerSigningSettings":{"Key":` + string(quoted) + `}}`,
		"a wrong kind":       `{"OpenIDServerSigningSettings":` + string(quoted) + `}`,
		"a name":             `{"OpenIDServerSigningSettings":{` + string(quoted) + `:1}}`,
		"broken":             `{"OpenIDServerSigningSettings":{"Key":` + string(quoted) + `x}}`,
		"raw line breaks":    `{"OpenIDServerSigningSettings":{"Key":"` + string(good) + `"}}`,
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := fleetkey.OpenStore(t.Context(), path)
		w.failed(t, "OpenStore: "+name, err)
	}
}

func (w *witness) aws(t *testing.T, alg string, good []byte) {
	server := awsfake.New()
	store, err := fleetkey.NewAWSStore(t.Context(), "fleet/signing", func(o *fleetkey.AWSOptions) {
		o.Client = server.Client()
		w.print("the AWS options", *o)
	})
	require.NoError(t, err)
	v, err := store.Save(t.Context(), good, "")
	require.NoError(t, err)
	_, err = store.Save(t.Context(), good, "")
	w.failed(t, "Save over a secret", err)
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
		server.Inject(fault)
		_, _, err := store.Load(t.Context())
		w.failed(t, "Load from AWS: "+name, err)
		_, err = store.Save(t.Context(), append(good, '\n'), v)
		w.failed(t, "Save to AWS: "+name, err)
		server.Heal()
	}
	w.print("the AWS store", store)
	w.print("the AWS store's fields", *store)
	s, err := fleetkey.NewSigner(by(w.now), store, w.config(alg))
	require.NoError(t, err)
	w.answers(t, s)
	require.NoError(t, s.Close())
}
