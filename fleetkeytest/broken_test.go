package fleetkeytest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// brokenEnv names the broken store that TestBrokenStore is to check.
const brokenEnv = "FLEETKEYTEST_BROKEN_STORE"

type version = fleetkey.Version

// A store is sound except for the methods that its fault replaces.
type store struct {
	*fleetkeytest.Store
	fault
	kept sync.Map    // bundles by version
	lost atomic.Bool // the first Save
}

// A fault breaks a promise of fleetkey.KeyStore. The suite must fail in its subtest.
type fault struct {
	subtest string
	load    func(context.Context, *store) ([]byte, version, error)
	save    func(context.Context, *store, []byte, version) (version, error)
}

func (s *store) Load(ctx context.Context) ([]byte, version, error) {
	if s.load == nil {
		return s.Store.Load(ctx)
	}
	return s.load(ctx, s)
}

func (s *store) Save(ctx context.Context, b []byte, prev version) (version, error) {
	if s.save == nil {
		return s.Store.Save(ctx, b, prev)
	}
	return s.save(ctx, s, b, prev)
}

func length(b []byte) version { return version(fmt.Sprint(len(b))) }

var faults = map[string]fault{
	"absence reported as refusal": {subtest: "Absent", load: func(ctx context.Context, s *store) ([]byte, version, error) {
		b, v, err := s.Store.Load(ctx)
		if errors.Is(err, fleetkey.ErrNotExist) {
			err = fleetkey.ErrAccessDenied
		}
		return b, v, err
	}},
	"zero version from Save": {subtest: "Create", save: func(ctx context.Context, s *store, b []byte, prev version) (version, error) {
		_, err := s.Store.Save(ctx, b, prev)
		return "", err
	}},
	"last writer wins": {subtest: "CreateTwice", save: func(_ context.Context, s *store, b []byte, _ version) (version, error) {
		return s.Set(b), nil
	}},
	"saving the same again succeeds": {subtest: "CreateTwice", save: func(ctx context.Context, s *store, b []byte, prev version) (version, error) {
		if now, v := s.Content(); bytes.Equal(now, b) {
			return v, nil
		}
		return s.Store.Save(ctx, b, prev)
	}},
	"length as version": {subtest: "Replace", load: func(ctx context.Context, s *store) ([]byte, version, error) {
		b, _, err := s.Store.Load(ctx)
		return b, length(b), err
	}, save: func(_ context.Context, s *store, b []byte, _ version) (version, error) {
		s.Set(b)
		return length(b), nil
	}},
	"any prev but the zero one": {subtest: "StalePrev", save: func(ctx context.Context, s *store, b []byte, prev version) (version, error) {
		if prev != "" {
			return s.Set(b), nil
		}
		return s.Store.Save(ctx, b, prev)
	}},
	"prev ignored when absent": {subtest: "PrevOnAbsent", save: func(ctx context.Context, s *store, b []byte, prev version) (version, error) {
		if _, now := s.Content(); now == "" {
			prev = ""
		}
		return s.Store.Save(ctx, b, prev)
	}},
	"white space trimmed": {subtest: "Content", load: func(ctx context.Context, s *store) ([]byte, version, error) {
		b, v, err := s.Store.Load(ctx)
		return bytes.TrimSpace(b), v, err
	}},
	"half of a refused bundle stored": {subtest: "TooLarge", save: func(ctx context.Context, s *store, b []byte, prev version) (version, error) {
		v, err := s.Store.Save(ctx, b, prev)
		if err != nil && len(b) > fleetkey.MaxBundleSize {
			s.Set(b[:len(b)/2])
		}
		return v, err
	}},
	"slices shared with the caller": {subtest: "CallerOwnsSlices", load: func(ctx context.Context, s *store) ([]byte, version, error) {
		b, v, err := s.Store.Load(ctx)
		if kept, ok := s.kept.Load(v); ok {
			b = kept.([]byte)
		}
		return b, v, err
	}, save: func(ctx context.Context, s *store, b []byte, prev version) (version, error) {
		v, err := s.Store.Save(ctx, b, prev)
		if err == nil {
			s.kept.Store(v, b)
		}
		return v, err
	}},
	"check then act on create":  {subtest: "CreateRace", save: checkThenAct},
	"check then act on replace": {subtest: "ReplaceRace", save: checkThenAct},
	"torn writes": {subtest: "LoadsDuringSaves", save: func(ctx context.Context, s *store, b []byte, prev version) (version, error) {
		half, err := s.Store.Save(ctx, b[:len(b)/2], prev)
		if err != nil {
			return "", err
		}
		time.Sleep(10 * time.Millisecond) // widens the window; nothing waits for it
		return s.Store.Save(ctx, b, half)
	}},
	"contexts ignored": {subtest: "EndedContext", load: func(_ context.Context, s *store) ([]byte, version, error) {
		return s.Store.Load(context.Background())
	}, save: func(_ context.Context, s *store, b []byte, prev version) (version, error) {
		return s.Store.Save(context.Background(), b, prev)
	}},
	"half a bundle left on cancellation": {subtest: "ContextEndsDuringSaves", save: func(ctx context.Context, s *store, b []byte, prev version) (version, error) {
		if prev == "" {
			return s.Store.Save(ctx, b, prev)
		}
		if !s.lost.Swap(true) {
			return "", fleetkey.ErrConflict // the first answer, which makes the suite cancel
		}
		<-ctx.Done()
		s.Set(b[:len(b)/2])
		return "", ctx.Err()
	}},
	"bundle in errors": {subtest: "EndedContext", save: func(ctx context.Context, s *store, b []byte, prev version) (version, error) {
		v, err := s.Store.Save(ctx, b, prev)
		if err != nil {
			err = fmt.Errorf("save %v: %w", b, err)
		}
		return v, err
	}},
}

// checkThenAct looks at the version and writes, with others in between.
func checkThenAct(_ context.Context, s *store, b []byte, prev version) (version, error) {
	if _, now := s.Content(); now != prev {
		return "", fleetkey.ErrConflict
	}
	time.Sleep(10 * time.Millisecond) // widens the window; nothing waits for it
	return s.Set(b), nil
}

// TestSuiteFailsOnBrokenStores runs the suite in child processes, since a test
// that must fail cannot run in this one. TestStore runs it on a sound store.
func TestSuiteFailsOnBrokenStores(t *testing.T) {
	for name, f := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBrokenStore$/^"+f.subtest+"$", "-test.v", "-test.timeout=60s")
			cmd.Env = append(os.Environ(), brokenEnv+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "the suite passed:\n%s", out)
			assert.Contains(t, string(out), "--- FAIL: TestBrokenStore/"+f.subtest)
			assert.NotContains(t, string(out), "panic:")
		})
	}
}

// TestBrokenStore is what the child processes run.
func TestBrokenStore(t *testing.T) {
	name := os.Getenv(brokenEnv)
	if name == "" {
		t.Skip("run by TestSuiteFailsOnBrokenStores")
	}
	fleetkeytest.TestKeyStore(t, func(*testing.T) func() fleetkey.KeyStore {
		s := &store{Store: fleetkeytest.NewStore(), fault: faults[name]}
		return func() fleetkey.KeyStore { return s }
	})
}
