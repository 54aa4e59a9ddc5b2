package fleetkey_test

import (
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
	code := m.Run()
	if childDir != "" {
		os.RemoveAll(childDir)
	}
	os.Exit(code)
}

var childDir string

// buildChild builds internal/filestorechild where every user may run it.
// Without cgo its system calls come in an order that does not change.
var buildChild = sync.OnceValues(func() (binary string, err error) {
	if childDir, err = os.MkdirTemp("", "filestorechild-"); err != nil {
		return "", err
	}
	if err := os.Chmod(childDir, 0o755); err != nil {
		return "", err
	}
	binary = filepath.Join(childDir, "filestorechild")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	build := exec.Command("go", "build", "-o", binary, "./internal/filestorechild")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
})

func childBinary(t *testing.T) string {
	t.Helper()
	binary, err := buildChild()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}
