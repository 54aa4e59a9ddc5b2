// Package moto starts moto, an emulator of AWS, for tests. Moto checks what package
// awsfake claims, independently of it. Tests say where moto departs from AWS.
//
// Moto is installed in .venv at the root of the repository, by make test or by
//
//	python3 -m venv .venv
//	.venv/bin/python -m pip install -q -r internal/moto/requirements.txt
//
// Without it these tests are skipped.
package moto

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/fleetkey/fleetkey/internal/awsfake"
)

var shared = sync.OnceValues(start)

// URL returns the address of the moto that all tests of this binary share. Moto starts
// with the first call and ends with the process. Where moto is not installed the test is
// skipped, as testkit.Missing does; package testkit has more dependencies than every
// module with a test on moto.
func URL(t testing.TB) string {
	t.Helper()
	const enable = "make test installs it where Python 3 with venv is"
	moto, err := shared()
	switch {
	case err == nil:
		return moto.url
	case !errors.Is(err, os.ErrNotExist):
		t.Fatal(err)
	case os.Getenv("FLEETKEY_REQUIRE") == "1":
		t.Fatalf("moto is missing: %s", enable)
	}
	t.Skipf("skipped: moto is missing: %s", enable)
	return ""
}

// Client returns an SDK client of the shared moto that retries with short pauses.
func Client(t testing.TB) *secretsmanager.Client {
	t.Helper()
	url := URL(t)
	return awsfake.New().Client(func(o *secretsmanager.Options) {
		o.BaseEndpoint, o.HTTPClient = aws.String(url), http.DefaultClient
	})
}

// A server is held with its command: moto exits when its standard input closes. The system
// does that when this process dies, even by a kill; the garbage collector must not.
type server struct {
	url string
	cmd *exec.Cmd
}

// start runs serve.py.
func start() (*server, error) {
	_, here, _, _ := runtime.Caller(0)
	here = filepath.Dir(here)
	python := filepath.Join(here, "..", "..", ".venv", "bin", "python")
	if runtime.GOOS == "windows" {
		python = filepath.Join(here, "..", "..", ".venv", "Scripts", "python.exe")
	}
	if _, err := os.Stat(python); err != nil {
		return nil, err
	}
	cmd := exec.Command(python, filepath.Join(here, "serve.py"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, err
	}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = cmd.Wait() // the log has the cause
		return nil, fmt.Errorf("moto did not start: %s", log.String())
	}
	return &server{strings.TrimSpace(line), cmd}, nil
}
