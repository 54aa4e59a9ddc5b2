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
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// SecretKey is a key that moto takes from anybody. It is as long as a real one:
// Go's FIPS 140 mode does not sign with shorter keys.
const SecretKey = "a-secret-key-of-forty-characters-in-all-"

var shared = sync.OnceValues(start)

// URL returns the address of the moto that all tests of this binary share. Moto
// starts with the first call and ends with the process.
func URL(t testing.TB) string {
	t.Helper()
	server, err := shared()
	if err != nil {
		fail(t, err)
	}
	return server.url
}

// Start returns the address of a new moto that ends with the test.
func Start(t testing.TB) string {
	t.Helper()
	server, err := start()
	if err != nil {
		fail(t, err)
	}
	t.Cleanup(func() {
		server.stop.Close()
		_ = server.cmd.Wait()
	})
	return server.url
}

// Client returns an SDK client of the moto at url that retries with short pauses.
func Client(url, keyID, secretKey string) *secretsmanager.Client {
	return secretsmanager.New(secretsmanager.Options{
		Region:       "eu-west-1",
		BaseEndpoint: aws.String(url),
		Credentials:  credentials.NewStaticCredentialsProvider(keyID, secretKey, ""),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return 10 * time.Millisecond, nil })
		}),
	})
}

type server struct {
	url  string
	cmd  *exec.Cmd
	stop io.Closer // moto's standard input: moto exits when it closes
}

// start runs serve.py. When this process dies, even by a kill, the system closes
// the pipe and moto exits.
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
	stop, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
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
	return &server{strings.TrimSpace(line), cmd, stop}, nil
}

// fail skips a test where moto is not installed, as testkit.Missing does. Package
// testkit has more dependencies than every module with a test on moto.
func fail(t testing.TB, err error) {
	t.Helper()
	const enable = "make test installs it where Python 3 with venv is"
	if !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if os.Getenv("FLEETKEY_REQUIRE") == "1" {
		t.Fatalf("moto is missing: %s", enable)
	}
	t.Skipf("skipped: moto is missing: %s", enable)
}
