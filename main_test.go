package fleetkey_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// TestMain removes what the tests of this package build once for all.
func TestMain(m *testing.M) {
	// In FIPS 140 mode Go's random bytes start from a clock's jitter, and the
	// clock of a testing/synctest bubble has none.
	rand.Text()
	code := m.Run()
	if childDir != "" {
		os.RemoveAll(childDir)
	}
	os.Exit(code)
}

var childDir string

// plainChild and raceChild build internal/filestorechild where every user may
// run it. Without cgo its system calls come in an order that does not change.
var (
	plainChild = sync.OnceValues(func() (string, error) { return buildChild("CGO_ENABLED=0") })
	raceChild  = sync.OnceValues(func() (string, error) { return buildChild("CGO_ENABLED=1", "-race") })
)

func buildChild(env string, flags ...string) (binary string, err error) {
	if childDir == "" {
		if childDir, err = os.MkdirTemp("", "filestorechild-"); err != nil {
			return "", err
		}
		if err := os.Chmod(childDir, 0o755); err != nil {
			return "", err
		}
	}
	binary = filepath.Join(childDir, "child"+env)
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	args := append([]string{"build", "-o", binary}, flags...)
	build := exec.Command("go", append(args, "./internal/filestorechild")...)
	build.Env = append(os.Environ(), env)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
}

func childBinary(t *testing.T) string {
	t.Helper()
	binary, err := plainChild()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}
