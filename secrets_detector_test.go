package fleetkey_test

import (
	"cmp"
	"context"
	"fmt"
	"go/ast"
	goparser "go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/leak"
)

// This file looks for key material, with package leak, in what secrets_test.go
// has collected.

// A detector keeps what others may see, and knows what they may not.
type detector struct {
	*leak.Detector
	mu      sync.Mutex
	outputs []output
}

type output struct{ from, text string }

func newDetector() *detector { return &detector{Detector: leak.NewDetector()} }

// add collects something that others may see.
func (d *detector) add(from string, values ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, v := range values {
		d.outputs = append(d.outputs, output{from, fmt.Sprint(v)})
	}
}

// hideToken adds a token: who sees all of it can use it, and the signature is
// what nobody can make up.
func (d *detector) hideToken(token string) {
	d.HideText("the signature of a token", token[strings.LastIndex(token, ".")+1:])
}

// check fails for every output that gives something away, without showing it.
func (d *detector) check(t *testing.T) {
	t.Helper()
	require.Greater(t, d.Pieces(), 100, "no secrets are known")
	size := 0
	for _, o := range d.outputs {
		size += len(o.text)
		if what := cmp.Or(d.Find(o.text), leak.Shape(o.text)); what != "" {
			t.Errorf("%s shows %s", o.from, what)
		}
	}
	t.Logf("%d outputs of %d bytes give away none of %d pieces of secrets", len(d.outputs), size, d.Pieces())
}

// A spyStore tells the detector of every key that passes.
type spyStore struct {
	fleetkey.KeyStore
	*detector
}

func (s spyStore) String() string { return fmt.Sprint(s.KeyStore) }

func (s spyStore) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	bundle, v, err := s.KeyStore.Load(ctx)
	s.HideBundle(bundle)
	return bundle, v, err
}

func (s spyStore) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	s.HideBundle(bundle)
	return s.KeyStore.Save(ctx, bundle, prev)
}

// exportedTypes lists the package's types that can have a value of their own.
func exportedTypes(t *testing.T) (names []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := goparser.ParseFile(token.NewFileSet(), name, nil, goparser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.IsExported() {
				if _, contract := spec.Type.(*ast.InterfaceType); !contract {
					names = append(names, spec.Name.Name)
				}
			}
			return true
		})
	}
	require.Contains(t, names, "Signer")
	return names
}
