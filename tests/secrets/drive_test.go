package secrets

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A driver calls public operations. It collects what others may see, and learns the secrets
// that they must not see.
type driver struct {
	t       *testing.T
	log     testkit.LogBuffer
	logger  *slog.Logger
	mu      sync.Mutex // guards the Detector
	secrets *Detector
	outputs map[string]string  // text: where it came from
	called  map[string]outcome // by "Type.Method" or function
	types   map[string]bool    // our types of which a value was printed

	// Arguments for the operations.
	store  fleetkey.KeyStore
	signer *fleetkey.Signer
	token  string // a good one, while the signer can issue
}

type outcome struct{ succeeded, failed, canFail bool }

func newDriver(t *testing.T, called map[string]outcome, types map[string]bool) *driver {
	d := &driver{t: t, secrets: NewDetector(), outputs: map[string]string{}, called: called, types: types}
	debug := &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}
	d.logger = slog.New(slog.NewMultiHandler(slog.NewJSONHandler(&d.log, debug), slog.NewTextHandler(&d.log, debug)))
	return d
}

// learn hides the keys of a bundle.
func (d *driver) learn(bundle []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secrets.HideBundle(bundle)
}

// A failingKey fails to encode with an error that quotes it.
type failingKey struct{ fleetkey.SigningKey }

func (k failingKey) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("cannot encode %+v", k.SigningKey)
}

// pool returns arguments for an operation, by type.
func (d *driver) pool(operation string) map[reflect.Type][]any {
	key := d.signer.SigningKey()
	anything, claims := []any{new(map[string]any), new(int)}, []any(nil)
	for _, extra := range []map[string]any{{"key": key}, {"x": func() {}}, {"x": failingKey{key}}, {"exp": key}} {
		anything = append(anything, extra)
		claims = append(claims, fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: "read", Extra: extra})
	}
	if token, err := d.signer.Issue(d.t.Context(), claims[0].(fleetkey.Claims)); err == nil {
		d.hideToken(token)
		d.token = token
	}
	good, _, err := jwt.NewParser().ParseUnverified(d.token, jwt.MapClaims{})
	require.NoError(d.t, err)
	texts := []any{key.KeyID, "unknown", "read"}
	if strings.HasSuffix(operation, ".Verify") {
		texts = d.tokens()
	}
	bundle, version, _ := d.store.Load(d.t.Context())
	inner := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { d.call("FromContext", fleetkey.FromContext, r.Context()) })
	return map[reflect.Type][]any{
		contextType:                         {d.t.Context()},
		reflect.TypeFor[string]():           texts,
		reflect.TypeFor[[]string]():         {[]string(nil), []string{"read"}, []string{"write"}},
		reflect.TypeFor[map[string]any]():   anything[2:3],
		reflect.TypeFor[any]():              anything,
		reflect.TypeFor[[]byte]():           {bundle, bytes.Repeat(bundle, 100)},
		reflect.TypeFor[*jwt.Token]():       {good, &jwt.Token{Header: map[string]any{"kid": "x"}}},
		reflect.TypeFor[fleetkey.Claims]():  claims,
		reflect.TypeFor[fleetkey.Version](): {fleetkey.Version(""), fleetkey.Version("another"), version},
		reflect.TypeFor[http.Handler]():     {inner},
	}
}

// tokens returns a good token, and copies that are damaged in each part.
func (d *driver) tokens() []any {
	good := d.token
	parts := strings.Split(good, ".")
	none := "eyJhbGciOiJub25lIiwia2lkIjoieCIsInR5cCI6ImF0K2p3dCJ9"
	return []any{
		good, good + ".", "Bearer " + good, good + "\n", parts[0] + "." + parts[1] + ".AAAA" + parts[2][4:], "e30." + parts[1] + "." + parts[2],
		parts[2] + "." + parts[1] + "." + parts[0], good + good, parts[0] + "." + parts[2] + "." + parts[2], none + "." + parts[1] + "." + parts[2],
	}
}

func (d *driver) hideToken(token string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secrets.Hide("the signature of a token", token[strings.LastIndexByte(token, '.')+1:])
}

// walk calls each method of some values in every way, except the methods that close them.
func (d *driver) walk(receivers ...any) {
	for _, receiver := range receivers {
		value := reflect.ValueOf(receiver)
		for i := range value.NumMethod() {
			if method := value.Type().Method(i).Name; method != "Close" && method != "Format" {
				d.each(reflect.Indirect(value).Type().Name()+"."+method, value.Method(i).Interface())
			}
		}
	}
}

// each calls a function with every combination of arguments from the pool.
func (d *driver) each(name string, f any) {
	typ, all := reflect.TypeOf(f), [][]any{nil}
	for i := range typ.NumIn() {
		choices := d.pool(name)[typ.In(i)]
		require.NotEmpty(d.t, choices, "the pool has nothing to call %s with: add it", name)
		var longer [][]any
		for _, args := range all {
			for _, choice := range choices {
				longer = append(longer, append(slices.Clone(args), choice))
			}
		}
		all = longer
	}
	for _, args := range all {
		_, _ = d.call(name, f, args...)
	}
}

var (
	contextType = reflect.TypeFor[context.Context]()
	errorType   = reflect.TypeFor[error]()
)

// call calls a function, with variadic arguments in a slice, and shows what goes in and what
// comes out.
func (d *driver) call(name string, f any, args ...any) (results []any, err error) {
	var in []reflect.Value
	for _, arg := range args {
		if ctx, ok := arg.(context.Context); ok {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			arg = ctx
		} else if ours(reflect.TypeOf(arg)) {
			d.show("an argument of "+name, arg)
		}
		in = append(in, reflect.ValueOf(arg))
	}
	function, typ := reflect.ValueOf(f), reflect.TypeOf(f)
	invoke := function.Call
	if typ.IsVariadic() {
		invoke = function.CallSlice
	}
	o := d.called[name]
	for i, out := range invoke(in) {
		if typ.Out(i) == errorType {
			o.canFail = true
			err, _ = out.Interface().(error)
		} else {
			results = append(results, out.Interface())
		}
	}
	d.called[name] = outcome{o.succeeded || err == nil, o.failed || err != nil, o.canFail}
	for _, v := range results {
		switch name {
		case "Signer.Issue", "Signer.Sign":
			d.hideToken(v.(string))
		case "FileStore.Load", "AWSStore.Load", ".Load": // a bundle is secret
		default:
			d.show("a result of "+name, v)
		}
	}
	d.show("an error of "+name, err)
	return results, err
}

// ours reports whether a type is part of the public API, even if it comes from an internal
// package.
func ours(typ reflect.Type) bool {
	return typ.Name() != "" && strings.Contains(typ.PkgPath(), "fleetkey/fleetkey") && !strings.Contains(typ.PkgPath(), "/tests/")
}

// show prints a value in every way, together with its parts and the results of its methods.
func (d *driver) show(from string, v any) {
	switch v := v.(type) {
	case nil, context.Context:
		return
	case []byte:
		d.print(from, string(v))
		return
	case http.Handler:
		d.ask(from, v)
		return
	case error:
		d.print(from, v)
		if several, ok := v.(interface{ Unwrap() []error }); ok {
			d.show(from, several.Unwrap())
		}
		d.show(from, errors.Unwrap(v))
		return
	}
	value := reflect.ValueOf(v)
	typ := value.Type()
	if typ.Kind() == reflect.Func {
		d.each(from, v)
		return
	}
	if typ.Kind() == reflect.Slice {
		for i := range value.Len() {
			d.show(from, value.Index(i).Interface())
		}
	}
	d.print(from, v)
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	if !ours(typ) || value.Kind() == reflect.Pointer && value.IsNil() {
		return
	}
	d.types[typ.Name()] = true
	_, isStore := v.(fleetkey.KeyStore)
	if _, ok := v.(io.Closer); ok || isStore {
		return // the test walks through these
	}
	d.walk(v)
	if value.Kind() == reflect.Struct {
		pointer := reflect.New(typ)
		pointer.Elem().Set(value)
		d.print("a pointer to "+from, pointer.Interface())
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() && (ours(f.Type) && f.Type.Kind() != reflect.Interface || f.Type.Kind() == reflect.Slice) {
				d.show(from+"."+f.Name, value.Field(i).Interface())
			}
		}
	}
}

// print collects a value in every format, including as part of another value.
func (d *driver) print(from string, v any) {
	once := fmt.Sprintf("%T %+v", v, v)
	if d.outputs[once] != "" {
		return
	}
	d.outputs[once] = from
	for _, format := range []string{"%v", "%#v", "%s", "%q", "%d", "%x", "%X"} {
		d.outputs[fmt.Sprintf(format, v)] = from + " as " + format
	}
	within := struct{ Value any }{v}
	for _, v := range []any{v, &v, within, []any{v}} {
		encoded, err := json.Marshal(v)
		d.outputs[fmt.Sprintf("%+v %#v %s %v", v, v, encoded, err)] = from + ", within another value or as JSON"
	}
	d.logger.Info("printed", "value", v, "group", slog.GroupValue(slog.Any("value", v)))
}

// ask collects the answers to requests with good and bad tokens.
func (d *driver) ask(from string, h http.Handler) {
	for _, token := range append(d.tokens(), "") {
		r, w := httptest.NewRequestWithContext(d.t.Context(), "GET", "/", nil), httptest.NewRecorder()
		r.Header.Set("Authorization", fmt.Sprint("Bearer ", token))
		h.ServeHTTP(w, r)
		d.outputs[fmt.Sprint(w.Code, w.Header(), w.Body)] = "the answer of " + from
	}
}

// check fails for every output that shows a secret, without printing it.
func (d *driver) check() {
	require.Greater(d.t, len(d.secrets.pieces), 1000, "no secrets are known")
	require.Greater(d.t, len(d.log.String()), 10_000, "nothing is logged")
	d.outputs[d.log.String()] = "the log"
	size := 0
	for text, from := range d.outputs {
		size += len(text)
		if what := d.secrets.Find(text); what != "" {
			d.t.Errorf("%s shows %s", from, what)
		}
	}
	d.t.Logf("%d outputs of %d bytes show none of %d pieces of secrets", len(d.outputs), size, len(d.secrets.pieces))
}

// checkDriven fails for every function that was not called, every type that was not printed,
// and every operation that only succeeded or only failed.
func checkDriven(t *testing.T, called map[string]outcome, types map[string]bool) {
	alwaysSucceeds := regexp.MustCompile(`\.(Close|MarshalText|MarshalJSON)$`)
	for name, o := range called {
		if o.canFail && !alwaysSucceeds.MatchString(name) {
			assert.True(t, o.succeeded && o.failed, "%s did not both succeed and fail: %v", name, o)
		}
	}
	api, err := exec.Command("go", "doc", "-short", "../..").Output()
	require.NoError(t, err)
	declarations := regexp.MustCompile(`(?m)^ *(func|type) (\w+)(.*)$`).FindAllStringSubmatch(string(api), -1)
	require.Greater(t, len(declarations), 15, "the public API was not found")
	for _, decl := range declarations {
		_, wasCalled := called[decl[2]]
		assert.True(t, wasCalled || types[decl[2]] || strings.Contains(decl[3], "interface"), "drive %s in this test", decl[2])
	}
}
