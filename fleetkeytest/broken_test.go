package fleetkeytest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// brokenEnv is the variable that gives TestBrokenStore the fault of its store.
const brokenEnv = "FLEETKEYTEST_BROKEN_STORE"

// faults are violations of the KeyStore contract, each with the subtest that must fail.
var faults = map[string]string{
	"absence reported as refusal":        "Create",
	"zero version from Save":             "Create",
	"last writer wins":                   "Create",
	"saving the same again succeeds":     "Create",
	"length as version":                  "Replace",
	"any prev but the zero one":          "Replace",
	"prev ignored when absent":           "PrevOnAbsent",
	"white space trimmed":                "Content",
	"half of a refused bundle stored":    "TooLarge",
	"slices shared with the caller":      "CallerOwnsSlices",
	"check then act":                     "Race",
	"torn writes":                        "LoadsDuringSaves",
	"contexts ignored":                   "EndedContext",
	"bundle in errors":                   "EndedContext",
	"half a bundle left on cancellation": "ContextEndsDuringSaves",
}

// namesPrev is not a fault: an error may contain the version passed to Save.
const namesPrev, long = "prev named in errors", "-0123456789abcdef0123456789abcdef0123456789abcdef"

// A store is correct except for its fault.
type store struct {
	*fleetkeytest.Store
	fault string
	kept  sync.Map    // bundles by version
	lost  atomic.Bool // whether a Save has lost
}

func length(b []byte) fleetkey.Version { return fleetkey.Version(fmt.Sprint(len(b))) }

func (s *store) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	if s.fault == "contexts ignored" {
		ctx = context.Background()
	}
	b, v, err := s.Store.Load(ctx)
	switch s.fault {
	case "absence reported as refusal":
		if errors.Is(err, fleetkey.ErrNotExist) {
			err = fleetkey.ErrAccessDenied
		}
	case "length as version":
		v = length(b)
	case "white space trimmed":
		b = bytes.TrimSpace(b)
	case "slices shared with the caller":
		if kept, ok := s.kept.Load(v); ok {
			b = kept.([]byte)
		}
	case namesPrev:
		if err == nil {
			v += long
		}
	}
	return b, v, err
}

func (s *store) Save(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	now, current := s.Content()
	switch s.fault {
	case "last writer wins":
		return s.Set(b), nil
	case "length as version":
		s.Set(b)
		return length(b), nil
	case "saving the same again succeeds":
		if bytes.Equal(now, b) {
			return current, nil
		}
	case "any prev but the zero one":
		if prev != "" {
			return s.Set(b), nil
		}
	case "prev ignored when absent":
		if current == "" {
			prev = ""
		}
	case "check then act":
		if current != prev {
			return "", fleetkey.ErrConflict
		}
		time.Sleep(10 * time.Millisecond) // widens the race window; the test does not depend on it
		return s.Set(b), nil
	case "torn writes":
		half, err := s.Store.Save(ctx, b[:len(b)/2], prev)
		if err != nil {
			return "", err
		}
		time.Sleep(10 * time.Millisecond) // as above
		prev = half
	case "contexts ignored":
		ctx = context.Background()
	case namesPrev:
		prev = fleetkey.Version(strings.TrimSuffix(string(prev), long))
	case "half a bundle left on cancellation":
		if prev != "" && !s.lost.Swap(true) {
			return "", fleetkey.ErrConflict // the first result makes the suite cancel the others
		} else if prev != "" {
			<-ctx.Done()
			s.Set(b[:len(b)/2])
			return "", ctx.Err()
		}
	}
	v, err := s.Store.Save(ctx, b, prev)
	switch {
	case s.fault == "zero version from Save":
		v = ""
	case s.fault == "half of a refused bundle stored" && err != nil:
		s.Set(b[:len(b)/2])
	case s.fault == "slices shared with the caller" && err == nil:
		s.kept.Store(v, b)
	case s.fault == "bundle in errors" && err != nil:
		err = fmt.Errorf("save %v: %w", b, err)
	case s.fault == namesPrev && err != nil:
		err = fmt.Errorf("expected version %q: %w", prev+long, err)
	case s.fault == namesPrev:
		v += long
	}
	return v, err
}

// TestSuiteFailsOnBrokenStores runs the suite in child processes, since a failing test would
// also fail this one. TestStore runs it on a correct store.
func TestSuiteFailsOnBrokenStores(t *testing.T) {
	for name, subtest := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBrokenStore$/^"+subtest+"$", "-test.v", "-test.timeout=60s")
			cmd.Env = append(os.Environ(), brokenEnv+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "the suite passed:\n%s", out)
			assert.Contains(t, string(out), "--- FAIL: TestBrokenStore/"+subtest)
			assert.NotContains(t, string(out), "panic:")
		})
	}
}

// TestBrokenStore runs in the child processes.
func TestBrokenStore(t *testing.T) {
	fault := os.Getenv(brokenEnv)
	if fault == "" {
		t.Skip("run by TestSuiteFailsOnBrokenStores")
	}
	fleetkeytest.TestKeyStore(t, func(*testing.T) func() fleetkey.KeyStore {
		s := &store{Store: fleetkeytest.NewStore(), fault: fault}
		return func() fleetkey.KeyStore { return s }
	})
}
