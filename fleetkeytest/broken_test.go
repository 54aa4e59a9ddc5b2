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
	open          func() func() fleetkey.KeyStore
}{
	{"absence reported as refusal", "Absent", loads(func(b []byte, v fleetkey.Version, err error) ([]byte, fleetkey.Version, error) {
		if errors.Is(err, fleetkey.ErrNotExist) {
			err = fleetkey.ErrAccessDenied
		}
		return b, v, err
	})},
	{"zero version from Save", "Create", answers(func(*fleetkeytest.Store, []byte, fleetkey.Version, error) (fleetkey.Version, error) {
		return "", nil
	})},
	{"last writer wins", "CreateTwice", saves(func(_ context.Context, s *fleetkeytest.Store, b []byte, _ fleetkey.Version) (fleetkey.Version, error) {
		return s.Set(b), nil
	})},
	{"saving the same again succeeds", "CreateTwice", saves(func(ctx context.Context, s *fleetkeytest.Store, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
		if now, v := s.Content(); bytes.Equal(now, b) {
			return v, nil
		}
		return s.Save(ctx, b, prev)
	})},
	{"length as version", "Replace", func() func() fleetkey.KeyStore {
		s := fleetkeytest.NewStore()
		length := func() fleetkey.Version {
			b, _ := s.Content()
			return fleetkey.Version(fmt.Sprint(len(b)))
		}
		return shared(store{
			load: func(ctx context.Context) ([]byte, fleetkey.Version, error) {
				b, _, err := s.Load(ctx)
				return b, length(), err
			},
			save: func(_ context.Context, b []byte, _ fleetkey.Version) (fleetkey.Version, error) {
				s.Set(b)
				return length(), nil
			},
		})
	}},
	{"any prev but the zero one", "StalePrev", saves(func(ctx context.Context, s *fleetkeytest.Store, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
		if prev != "" {
			return s.Set(b), nil
		}
		return s.Save(ctx, b, prev)
	})},
	{"prev ignored when absent", "PrevOnAbsent", saves(func(ctx context.Context, s *fleetkeytest.Store, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
		if _, now := s.Content(); now == "" {
			prev = ""
		}
		return s.Save(ctx, b, prev)
	})},
	{"white space trimmed", "Content", loads(func(b []byte, v fleetkey.Version, err error) ([]byte, fleetkey.Version, error) {
		return bytes.TrimSpace(b), v, err
	})},
	{"half of a refused bundle stored", "TooLarge", answers(func(s *fleetkeytest.Store, b []byte, v fleetkey.Version, err error) (fleetkey.Version, error) {
		if err != nil && len(b) > fleetkey.MaxBundleSize {
			s.Set(b[:len(b)/2])
		}
		return v, err
	})},
	{"slices shared with the caller", "CallerOwnsSlices", func() func() fleetkey.KeyStore {
		s, mine := fleetkeytest.NewStore(), sync.Map{}
		return shared(store{
			load: func(ctx context.Context) ([]byte, fleetkey.Version, error) {
				b, v, err := s.Load(ctx)
				if kept, ok := mine.Load(v); ok {
					b = kept.([]byte)
				}
				return b, v, err
			},
			save: func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
				v, err := s.Save(ctx, b, prev)
				if err == nil {
					mine.Store(v, b)
				}
				return v, err
			},
		})
	}},
	{"check then act on create", "CreateRace", saves(checkThenAct(true))},
	{"check then act on replace", "ReplaceRace", saves(checkThenAct(false))},
	{"torn writes", "LoadsDuringSaves", saves(func(ctx context.Context, s *fleetkeytest.Store, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
		half, err := s.Save(ctx, b[:len(b)/2], prev)
		if err != nil {
			return "", err
		}
		time.Sleep(time.Millisecond) // widens the window; nothing waits for it
		return s.Save(ctx, b, half)
	})},
	{"contexts ignored", "EndedContext", func() func() fleetkey.KeyStore {
		s := fleetkeytest.NewStore()
		return shared(store{
			load: func(context.Context) ([]byte, fleetkey.Version, error) { return s.Load(context.Background()) },
			save: func(_ context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
				return s.Save(context.Background(), b, prev)
			},
		})
	}},
	{"half a bundle left on cancellation", "ContextEndsDuringSaves", func() func() fleetkey.KeyStore {
		s, lost := fleetkeytest.NewStore(), new(atomic.Bool)
		return shared(store{load: s.Load, save: func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			if prev == "" {
				return s.Save(ctx, b, prev)
			}
			if !lost.Swap(true) {
				return "", fleetkey.ErrConflict // the first answer, which makes the suite cancel
			}
			<-ctx.Done()
			s.Set(b[:len(b)/2])
			return "", ctx.Err()
		}})
	}},
	{"bundle in errors", "EndedContext", answers(func(s *fleetkeytest.Store, b []byte, v fleetkey.Version, err error) (fleetkey.Version, error) {
		if err != nil {
			err = fmt.Errorf("save %v: %w", b, err)
		}
		return v, err
	})},
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
			fleetkeytest.TestKeyStore(t, func(*testing.T) func() fleetkey.KeyStore { return b.open() })
		}
	}
}

// A store is a KeyStore of two functions.
type store struct {
	load func(context.Context) ([]byte, fleetkey.Version, error)
	save func(context.Context, []byte, fleetkey.Version) (fleetkey.Version, error)
}

func (s store) Load(ctx context.Context) ([]byte, fleetkey.Version, error) { return s.load(ctx) }

func (s store) Save(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	return s.save(ctx, b, prev)
}

func shared(s store) func() fleetkey.KeyStore { return func() fleetkey.KeyStore { return s } }

// loads breaks what a sound store's Load returns.
func loads(change func([]byte, fleetkey.Version, error) ([]byte, fleetkey.Version, error)) func() func() fleetkey.KeyStore {
	return func() func() fleetkey.KeyStore {
		s := fleetkeytest.NewStore()
		return shared(store{save: s.Save, load: func(ctx context.Context) ([]byte, fleetkey.Version, error) {
			return change(s.Load(ctx))
		}})
	}
}

// answers breaks what a sound store's Save returns.
func answers(change func(*fleetkeytest.Store, []byte, fleetkey.Version, error) (fleetkey.Version, error)) func() func() fleetkey.KeyStore {
	return saves(func(ctx context.Context, s *fleetkeytest.Store, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
		v, err := s.Save(ctx, b, prev)
		return change(s, b, v, err)
	})
}

// saves puts another Save on a sound store.
func saves(save func(context.Context, *fleetkeytest.Store, []byte, fleetkey.Version) (fleetkey.Version, error)) func() func() fleetkey.KeyStore {
	return func() func() fleetkey.KeyStore {
		s := fleetkeytest.NewStore()
		return shared(store{load: s.Load, save: func(ctx context.Context, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
			return save(ctx, s, b, prev)
		}})
	}
}

// checkThenAct looks at the version and writes, with others in between.
func checkThenAct(create bool) func(context.Context, *fleetkeytest.Store, []byte, fleetkey.Version) (fleetkey.Version, error) {
	return func(ctx context.Context, s *fleetkeytest.Store, b []byte, prev fleetkey.Version) (fleetkey.Version, error) {
		if (prev == "") != create {
			return s.Save(ctx, b, prev)
		}
		if _, now := s.Content(); now != prev {
			return "", fleetkey.ErrConflict
		}
		time.Sleep(time.Millisecond) // widens the window; nothing waits for it
		return s.Set(b), nil
	}
}
