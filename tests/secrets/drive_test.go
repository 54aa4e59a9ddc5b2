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
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A driver calls public operations. It collects what others may see, and learns what
// they may not.
type driver struct {
	t       *testing.T
	mu      sync.Mutex // guards the Detector, and the log while it is written
	secrets *Detector
	log     bytes.Buffer
	logger  *slog.Logger
	outputs map[string]string       // text: where it came from
	called  map[string][2]bool      // by "Type.Method" or function: has succeeded, has failed
	types   map[string]reflect.Type // of ours, with a value that was printed
}

func newDriver(t *testing.T, called map[string][2]bool, types map[string]reflect.Type) *driver {
	d := &driver{t: t, secrets: NewDetector(), outputs: map[string]string{}, called: called, types: types}
	debug := &slog.HandlerOptions{Level: slog.LevelDebug, AddSource: true}
	d.logger = slog.New(slog.NewMultiHandler(slog.NewJSONHandler(d, debug), slog.NewTextHandler(d, debug)))
	return d
}

func (d *driver) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.Write(p)
}

// learn hides the keys of a bundle.
func (d *driver) learn(bundle []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secrets.HideBundle(bundle)
}

// config returns the configuration of a signer that logs everything.
func (d *driver) config(alg string) fleetkey.Config {
	cfg := testkit.Lazily(testkit.Rotating())
	cfg.Algorithm, cfg.Logger = alg, d.logger
	return cfg
}

// A spy is a store on its way to a signer. It learns every key that passes.
type spy struct {
	fleetkey.KeyStore
	d *driver
}

func (s spy) String() string { return fmt.Sprint(s.KeyStore) }

func (s spy) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	bundle, v, err := s.KeyStore.Load(ctx)
	s.d.learn(bundle)
	return bundle, v, err
}

func (s spy) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	s.d.learn(bundle)
	return s.KeyStore.Save(ctx, bundle, prev)
}

// do calls a method of a value.
func (d *driver) do(receiver any, method string, args ...any) (result any, err error) {
	name := reflect.Indirect(reflect.ValueOf(receiver)).Type().Name() + "." + method
	return d.call(name, reflect.ValueOf(receiver).MethodByName(method).Interface(), args...)
}

// must is do for a call that succeeds.
func (d *driver) must(receiver any, method string, args ...any) any {
	d.t.Helper()
	result, err := d.do(receiver, method, args...)
	require.NoError(d.t, err, method)
	return result
}

// fails is do for a call that fails.
func (d *driver) fails(receiver any, method string, args ...any) {
	d.t.Helper()
	_, err := d.do(receiver, method, args...)
	require.Error(d.t, err, method)
}

func (d *driver) start(store fleetkey.KeyStore, cfg fleetkey.Config) (*fleetkey.Signer, error) {
	result, err := d.call("NewSigner", fleetkey.NewSigner, store, cfg)
	s, _ := result.(*fleetkey.Signer)
	return s, err
}

var (
	contextType = reflect.TypeFor[context.Context]()
	errorType   = reflect.TypeFor[error]()
)

// call calls a function, with a context if it takes one and args have none, and shows
// its results.
func (d *driver) call(name string, f any, args ...any) (result any, err error) {
	var in []reflect.Value
	typ := reflect.TypeOf(f)
	if typ.NumIn() > 0 && typ.In(0) == contextType && (len(args) == 0 || !reflect.TypeOf(args[0]).Implements(contextType)) {
		ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
		defer cancel()
		in = append(in, reflect.ValueOf(ctx))
	}
	for _, arg := range args {
		if bundle, ok := arg.([]byte); ok {
			d.learn(bundle)
		}
		if ours(reflect.TypeOf(arg)) {
			d.show("an argument of "+name, arg)
		}
		in = append(in, reflect.ValueOf(arg))
	}
	for i, out := range reflect.ValueOf(f).Call(in) {
		v := out.Interface()
		if typ.Out(i) == errorType {
			err, _ = v.(error)
			continue
		}
		if i == 0 {
			result = v
		}
		bundle, isBytes := v.([]byte)
		switch text, _ := v.(string); {
		case name == "Signer.Issue" || name == "Signer.Sign":
			d.mu.Lock()
			d.secrets.Hide("the signature of a token", text[strings.LastIndexByte(text, '.')+1:])
			d.mu.Unlock()
		case isBytes && (strings.HasSuffix(name, ".Load") || strings.HasSuffix(name, ".Content")):
			d.learn(bundle)
		case isBytes:
			d.show(name, string(bundle))
		default:
			d.show("a result of "+name, v)
		}
	}
	outcome := d.called[name]
	d.called[name] = [2]bool{outcome[0] || err == nil, outcome[1] || err != nil}
	d.show("an error of "+name, err)
	return result, err
}

// ours reports whether a type is part of the public API, also if it comes from an
// internal package.
func ours(typ reflect.Type) bool {
	return typ.Name() != "" && strings.Contains(typ.PkgPath(), "fleetkey/fleetkey") && !strings.Contains(typ.PkgPath(), "/tests/")
}

// show prints a value in every way, together with what it consists of and what its
// getters return.
func (d *driver) show(from string, v any) {
	switch v := v.(type) {
	case nil, []byte, context.Context:
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
	d.print(from, v)
	if typ.Kind() == reflect.Slice {
		for i := range value.Len() {
			d.show(from, value.Index(i).Interface())
		}
	}
	pointer, plain := typ.Kind() == reflect.Pointer, typ
	if pointer {
		plain = typ.Elem()
	}
	if !ours(plain) || pointer && value.IsNil() {
		return
	}
	d.types[plain.Name()] = plain
	for _, printing := range []string{"Format", "String"} { // which print has made fmt call
		if value.MethodByName(printing).IsValid() {
			d.called[plain.Name()+"."+printing] = [2]bool{true, true}
		}
	}
	if _, ok := v.(io.Closer); ok {
		return // its methods do things
	}
	if _, ok := v.(fleetkey.KeyStore); ok {
		if plain.Name() != "Store" { // which nobody copies: it has a lock
			d.print(from, value.Elem().Interface())
		}
		return
	}
	for i := range typ.NumMethod() {
		if m := typ.Method(i); m.Type.NumIn() == 1 {
			_, _ = d.do(v, m.Name)
		}
	}
	if typ.Kind() == reflect.Struct {
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() && (ours(f.Type) && f.Type.Kind() != reflect.Interface || f.Type.Kind() == reflect.Slice) {
				d.show(from+"."+f.Name, value.Field(i).Interface())
			}
		}
	}
}

// print collects a value in every format, among them those of a value within another
// one.
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

// ask collects an HTTP answer.
func (d *driver) ask(from string, h http.Handler, header ...string) {
	r, w := httptest.NewRequestWithContext(d.t.Context(), "GET", "/", nil), httptest.NewRecorder()
	if header != nil {
		r.Header.Set(header[0], header[1])
	}
	h.ServeHTTP(w, r)
	d.outputs[fmt.Sprint(w.Code, w.Header(), w.Body)] = "the answer of " + from
}

// check fails for every output that shows a secret, without printing it.
func (d *driver) check() {
	require.Greater(d.t, len(d.secrets.pieces), 1000, "no secrets are known")
	require.Greater(d.t, d.log.Len(), 10_000, "nothing is logged")
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

// checkDriven fails for every public operation that was not called, or that was seen to
// succeed only, or to fail only.
func (d *driver) checkDriven() {
	alwaysSucceed := map[string]bool{"Signer.Close": true, "Verifier.Close": true, "SigningKey.MarshalText": true, "Status.MarshalJSON": true}
	needs := func(name string, typ reflect.Type) {
		outcome, ok := d.called[name]
		if !ok {
			d.t.Errorf("%s was never called: drive it in this test", name)
		} else if n := typ.NumOut(); n > 0 && typ.Out(n-1) == errorType && !alwaysSucceed[name] && outcome != [2]bool{true, true} {
			d.t.Errorf("%s did not both succeed and fail: %v", name, outcome)
		}
	}
	for name, typ := range d.types {
		for i := range reflect.PointerTo(typ).NumMethod() {
			m := reflect.PointerTo(typ).Method(i)
			needs(name+"."+m.Name, m.Type)
		}
	}
	api, err := exec.Command("go", "doc", "-short", "../..").Output()
	require.NoError(d.t, err)
	declarations := regexp.MustCompile(`(?m)^ *(func|type) (\w+)(.*)$`).FindAllStringSubmatch(string(api), -1)
	require.Greater(d.t, len(declarations), 15, "the public API was not found")
	for _, decl := range declarations {
		switch name := decl[2]; {
		case decl[1] == "func":
			needs(name, reflect.TypeFor[func()]())
		case !strings.Contains(decl[3], "interface") && d.types[name] == nil:
			d.t.Errorf("no %s was printed: drive it in this test", name)
		}
	}
}
