// Package moto reaches moto, an emulator of AWS, for tests. It is an
// independent check of what package awsfake claims; where it departs from AWS,
// the tests say so.
//
// with-moto.sh installs moto and runs a command beside it. Without that, a test
// starts what it finds in .venv, and is skipped if there is nothing.
package moto

import (
	"bufio"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// URL returns the address of a moto on this machine: the one with-moto.sh
// started, or a new one that ends with the test.
func URL(t testing.TB) string {
	t.Helper()
	given := os.Getenv("AWS_ENDPOINT_URL_SECRETS_MANAGER")
	if u, err := url.Parse(given); err == nil && u.Hostname() == "127.0.0.1" {
		return given
	}
	return Start(t)
}

// Start returns the address of a moto of its own, which ends with the test.
func Start(t testing.TB) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	here = filepath.Dir(here)
	python := filepath.Join(here, "..", "..", ".venv", "bin", "python")
	if runtime.GOOS == "windows" {
		python = filepath.Join(here, "..", "..", ".venv", "Scripts", "python.exe")
	}
	if _, err := os.Stat(python); err != nil {
		missing(t, "not installed; internal/moto/with-moto.sh go test ./... installs it")
	}
	var log strings.Builder
	cmd := exec.Command(python, filepath.Join(here, "serve.py"))
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		missing(t, err.Error())
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = cmd.Wait()
		missing(t, "it ended: "+log.String())
	}
	return strings.TrimSpace(line)
}

func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("FLEETKEY_REQUIRE") != "" {
		t.Fatal("moto is required, but ", why)
	}
	t.Skip("NOT TESTED against moto: ", why)
}
