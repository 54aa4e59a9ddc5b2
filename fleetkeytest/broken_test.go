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

// brokenStores break one promise each. The suite must fail on every one of
// them, in the subtest named.
var brokenStores = []struct {
	name, subtest string
	breaks        func(*store)
}{
	{"absence reported as refusal", "Absent", func(s *store) {
		s.load = func(ctx context.Context) ([]byte, fleetkey.Version, error) {
			b, v, err := s.Store.Load(ctx)
			if errors.Is(err, fleetkey.ErrNotExist) {
				err = fleetkey.ErrAccessDenied
			}
			return b, v, err
		}
	}},
	{"zero version from Save", "Create", func(s *store) {
		s.save = func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			_, err := s.Store.Save(ctx, b, prev)
			return "", err
		}
	}},
	{"last writer wins", "CreateTwice", func(s *store) {
		s.save = func(_ context.Context, b []byte, _ fleetkey.Version) (fleetkey.Version, error) { return s.Set(b), nil }
	}},
	{"saving the same again succeeds", "CreateTwice", func(s *store) {
		s.save = func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			if now, v := s.Content(); bytes.Equal(now, b) {
				return v, nil
			}
			return s.Store.Save(ctx, b, prev)
		}
	}},
	{"length as version", "Replace", func(s *store) {
		length := func(b []byte) fleetkey.Version { return fleetkey.Version(fmt.Sprint(len(b))) }
		s.load = func(ctx context.Context) ([]byte, fleetkey.Version, error) {
			b, _, err := s.Store.Load(ctx)
			return b, length(b), err
		}
		s.save = func(_ context.Context, b []byte, _ fleetkey.Version) (fleetkey.Version, error) {
			s.Set(b)
			return length(b), nil
		}
	}},
	{"any prev but the zero one", "StalePrev", func(s *store) {
		s.save = func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			if prev != "" {
				return s.Set(b), nil
			}
			return s.Store.Save(ctx, b, prev)
		}
	}},
	{"prev ignored when absent", "PrevOnAbsent", func(s *store) {
		s.save = func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			if _, now := s.Content(); now == "" {
				prev = ""
			}
			return s.Store.Save(ctx, b, prev)
		}
	}},
	{"white space trimmed", "Content", func(s *store) {
		s.load = func(ctx context.Context) ([]byte, fleetkey.Version, error) {
			b, v, err := s.Store.Load(ctx)
			return bytes.TrimSpace(b), v, err
		}
	}},
	{"half of a refused bundle stored", "TooLarge", func(s *store) {
		s.save = func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			v, err := s.Store.Save(ctx, b, prev)
			if err != nil && len(b) > fleetkey.MaxBundleSize {
				s.Set(b[:len(b)/2])
			}
			return v, err
		}
	}},
	{"slices shared with the caller", "CallerOwnsSlices", func(s *store) {
		var mine sync.Map
		s.load = func(ctx context.Context) ([]byte, fleetkey.Version, error) {
			b, v, err := s.Store.Load(ctx)
			if kept, ok := mine.Load(v); ok {
				b = kept.([]byte)
			}
			return b, v, err
		}
		s.save = func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			v, err := s.Store.Save(ctx, b, prev)
			if err == nil {
				mine.Store(v, b)
			}
			return v, err
		}
	}},
	{"check then act on create", "CreateRace", func(s *store) { s.checksThenActs(true) }},
	{"check then act on replace", "ReplaceRace", func(s *store) { s.checksThenActs(false) }},
	{"torn writes", "LoadsDuringSaves", func(s *store) {
		s.save = func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			half, err := s.Store.Save(ctx, b[:len(b)/2], prev)
			if err != nil {
				return "", err
			}
			time.Sleep(10 * time.Millisecond) // widens the window; nothing waits for it
			return s.Store.Save(ctx, b, half)
		}
	}},
	{"contexts ignored", "EndedContext", func(s *store) {
		s.load = func(context.Context) ([]byte, fleetkey.Version, error) { return s.Store.Load(context.Background()) }
		s.save = func(_ context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			return s.Store.Save(context.Background(), b, prev)
		}
	}},
	{"half a bundle left on cancellation", "ContextEndsDuringSaves", func(s *store) {
		var lost atomic.Bool
		s.save = func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			if prev == "" {
				return s.Store.Save(ctx, b, prev)
			}
			if !lost.Swap(true) {
				return "", fleetkey.ErrConflict // the first answer, which makes the suite cancel
			}
			<-ctx.Done()
			s.Set(b[:len(b)/2])
			return "", ctx.Err()
		}
	}},
	{"bundle in errors", "EndedContext", func(s *store) {
		s.save = func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			v, err := s.Store.Save(ctx, b, prev)
			if err != nil {
				err = fmt.Errorf("save %v: %w", b, err)
			}
			return v, err
		}
	}},
}

// TestSuiteFailsOnBrokenStores runs the suite in child processes, since a test
// that must fail cannot run in this one. TestStore runs it on a sound store.
func TestSuiteFailsOnBrokenStores(t *testing.T) {
	for _, b := range brokenStores {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBrokenStore$/^"+b.subtest+"$", "-test.v", "-test.timeout=60s")
			cmd.Env = append(os.Environ(), brokenEnv+"="+b.name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "the suite passed:\n%s", out)
			assert.Contains(t, string(out), "--- FAIL: TestBrokenStore/"+b.subtest)
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
	for _, b := range brokenStores {
		if b.name == name {
			fleetkeytest.TestKeyStore(t, func(*testing.T) func() fleetkey.KeyStore {
				sound := fleetkeytest.NewStore()
				s := &store{sound, sound.Load, sound.Save}
				b.breaks(s)
				return func() fleetkey.KeyStore { return s }
			})
		}
	}
}

// A store is sound except for the methods that are replaced.
type store struct {
	*fleetkeytest.Store
	load func(context.Context) ([]byte, fleetkey.Version, error)
	save func(context.Context, []byte, fleetkey.Version) (fleetkey.Version, error)
}

func (s *store) Load(ctx context.Context) ([]byte, fleetkey.Version, error) { return s.load(ctx) }

func (s *store) Save(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	return s.save(ctx, b, prev)
}

// checksThenActs makes s look at the version and write, with others in between.
func (s *store) checksThenActs(create bool) {
	s.save = func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
		if (prev == "") != create {
			return s.Store.Save(ctx, b, prev)
		}
		if _, now := s.Content(); now != prev {
			return "", fleetkey.ErrConflict
		}
		time.Sleep(10 * time.Millisecond) // widens the window; nothing waits for it
		return s.Set(b), nil
	}
}
