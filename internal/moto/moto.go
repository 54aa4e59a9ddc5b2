// Package moto starts moto, an emulator of AWS, for tests. Moto is an independent check of
// package awsfake. Tests note where moto differs from AWS.
//
// Moto is installed in .venv at the root of the repository, by make test or by
//
//	python3 -m venv .venv
//	.venv/bin/python -m pip install -q -r internal/moto/requirements.txt
//
// Without it these tests are skipped. LocalStack, another emulator, is half a gigabyte. Only
// make long installs it, in .venv-localstack, and runs the tests that use it.
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

var (
	shared     = sync.OnceValues(func() (*server, error) { return start(".venv", "serve.py") })
	localStack = sync.OnceValues(func() (*server, error) { return start(".venv-localstack", "serve_localstack.py") })
)

// URL returns the address of the moto that all tests of this binary share. Moto starts with
// the first call and ends with the process. If moto is not installed, the test is skipped, as
// by testkit.Missing. Package testkit itself has dependencies that some modules with moto
// tests lack.
func URL(t testing.TB) string {
	t.Helper()
	return url(t, shared, "FLEETKEY_REQUIRE", "moto is missing: make test installs it where Python 3 with venv is")
}

// url skips the test if the emulator is missing, or fails it if the variable required is 1.
func url(t testing.TB, start func() (*server, error), required, missing string) string {
	t.Helper()
	s, err := start()
	switch {
	case err == nil:
		return s.url
	case !errors.Is(err, os.ErrNotExist):
		t.Fatal(err)
	case os.Getenv(required) == "1":
		t.Fatal(missing)
	}
	t.Skip("skipped: " + missing)
	return ""
}

// Client returns an SDK client of the shared moto that retries with short pauses.
func Client(t testing.TB) *secretsmanager.Client {
	t.Helper()
	return client(URL(t), http.DefaultClient)
}

// LocalStack returns an SDK client of the shared LocalStack. It sends one request at a time,
// because LocalStack checks first and writes later, without a lock.
func LocalStack(t testing.TB) *secretsmanager.Client {
	t.Helper()
	return client(url(t, localStack, "FLEETKEY_LONG", "LocalStack is missing: make long installs it"), &serial{})
}

func client(url string, doer secretsmanager.HTTPClient) *secretsmanager.Client {
	return awsfake.New().Client(func(o *secretsmanager.Options) { o.BaseEndpoint, o.HTTPClient = aws.String(url), doer })
}

type serial struct{ mu sync.Mutex }

func (s *serial) Do(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return http.DefaultClient.Do(r)
}

// A server keeps its command from the garbage collector, because moto exits when its standard
// input closes. The system closes it when this process dies, even if it is killed.
type server struct {
	url string
	cmd *exec.Cmd
}

// start runs a script with the Python of a virtual environment.
func start(venv, script string) (*server, error) {
	_, here, _, _ := runtime.Caller(0)
	here = filepath.Dir(here)
	python := filepath.Join(here, "..", "..", venv, "bin", "python")
	if _, err := os.Stat(python); err != nil {
		return nil, err
	}
	cmd := exec.Command(python, filepath.Join(here, script))
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
		return nil, fmt.Errorf("%s did not start: %s", script, log.String())
	}
	return &server{strings.TrimSpace(line), cmd}, nil
}
