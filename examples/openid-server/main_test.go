package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// Tests of the program as a whole: the demonstration on every kind of store,
// the fleet, and the command line.

const anyPort = "127.0.0.1:0"

func TestMain(m *testing.M) {
	slog.SetLogLoggerLevel(slog.LevelWarn) // as main does
	os.Exit(m.Run())
}

// requireStory checks every line of a demonstration that went well.
func requireStory(t *testing.T, output, store string) {
	t.Helper()
	const key = `[A-Za-z0-9_-]{43}`
	refused := func(n int) string {
		return fmt.Sprintf(`  instance %d refuses it: 401 Bearer error="invalid_token", error_description="[a-z ]+"`, n)
	}
	want := []string{
		`3 OpenID servers share one signing key, in ` + store + `\.`,
		`  proxy       http://127\.0\.0\.1:\d+`,
		`  instance 1  http://127\.0\.0\.1:\d+  key (` + key + `)`,
		`  instance 2  http://127\.0\.0\.1:\d+  key (` + key + `)`,
		`  instance 3  http://127\.0\.0\.1:\d+  key (` + key + `)`,
		``,
		`Instance 1 issues a token, signed with key (` + key + `)\.`,
		`  instance 2 accepts it: 200 hello, demo`,
		`  instance 3 accepts it: 200 hello, demo`,
		`  through the proxy, instance 1 accepts it: 200 hello, demo`,
		`  through the proxy, instance 2 accepts it: 200 hello, demo`,
		`  through the proxy, instance 3 accepts it: 200 hello, demo`,
		``,
		`A server with a key of its own issues a token, signed with key (` + key + `)\.`,
		refused(1), refused(2), refused(3),
	}
	lines := strings.Split(strings.TrimSuffix(output, "\n"), "\n")
	require.Len(t, lines, len(want), output)
	var keys []string
	for i, line := range lines {
		m := regexp.MustCompile("^" + want[i] + "$").FindStringSubmatch(line)
		require.NotNil(t, m, "line %d is %q, want %s", i+1, line, want[i])
		keys = append(keys, m[1:]...)
	}
	require.Len(t, keys, 5)
	require.Equal(t, []string{keys[0], keys[0], keys[0]}, keys[1:4], "the fleet has more than one key")
	require.NotEqual(t, keys[0], keys[4], "the stranger has the fleet's key")
}

func TestDemonstration(t *testing.T) {
	aws := awsfake.Start(t)
	aws.Setenv(t)
	file := filepath.Join(t.TempDir(), "keys", "fleet.pem")
	for _, c := range []struct {
		name  string
		args  []string
		store string
	}{
		{"temporary file", nil, `file .*openid-server-\d+.keys\.pem`},
		{"lasting file", []string{"-file", file}, `file ` + regexp.QuoteMeta(file)},
		{"secret", []string{"-secret", "fleetkey/demo-keys"}, `AWS secret fleetkey/demo-keys in eu-west-1`},
		{"settings, the same secret", []string{"-settings", "appsettings.json"}, `AWS secret fleetkey/demo-keys in eu-west-1`},
	} {
		t.Run(c.name, func(t *testing.T) {
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			t.Setenv("TMP", temp) // on Windows
			before := aws.Calls("GetSecretValue")
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append(c.args, "-once", "-addr", anyPort), &stdout, &stderr)
			require.Zero(t, code, stderr.String())
			requireStory(t, stdout.String(), c.store)
			if strings.HasPrefix(c.store, "AWS") {
				assert.GreaterOrEqual(t, aws.Calls("GetSecretValue")-before, fleetSize)
			} else {
				assert.Zero(t, aws.Calls(""))
			}
			left, err := os.ReadDir(temp)
			require.NoError(t, err)
			assert.Empty(t, left, "keys are left behind")
		})
	}
	assert.FileExists(t, file)

	t.Run("memory", func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, start(t.Context(), options{addr: anyPort, once: true}, shared(fleetkeytest.NewStore()), t.TempDir(), &out))
		requireStory(t, out.String(), `.*in-memory store`)
	})
}

// shared gives every instance its own way to one store.
func shared(s *fleetkeytest.Store) openStore {
	return func(context.Context) (fleetkey.KeyStore, error) { return s.Open(), nil }
}

// TestDemonstrationOfABrokenFleet gives every instance a store of its own, which
// the demonstration has to find out.
func TestDemonstrationOfABrokenFleet(t *testing.T) {
	apart := func(context.Context) (fleetkey.KeyStore, error) { return fleetkeytest.NewStore(), nil }
	err := start(t.Context(), options{addr: anyPort, once: true}, apart, t.TempDir(), io.Discard)
	require.ErrorContains(t, err, "the demonstration failed: instance 2: refused the token: 401 Bearer")
}

func TestFleet(t *testing.T) {
	l, err := net.Listen("tcp", anyPort)
	require.NoError(t, err)
	d := demo{out: io.Discard, clientID: "a client", secret: "with: & odd + letters %"}
	f, err := startFleet(t.Context(), l, shared(fleetkeytest.NewStore()), map[string]client{
		d.clientID: {sha256.Sum256([]byte(d.secret)), []string{scopeRead}},
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, f.close()) }()

	t.Run("every instance accepts every token", func(t *testing.T) {
		for _, from := range f.instances {
			token, err := d.token(t.Context(), from.url)
			require.NoError(t, err)
			for _, at := range f.instances {
				a, err := d.hello(t.Context(), at.url, token)
				require.NoError(t, err)
				want := answer{greeting{"hello, a client", from.kid()}, http.StatusOK, at.name, ""}
				assert.Equal(t, want, a, "token of %s at %s", from.name, at.name)
			}
		}
	})
	t.Run("the proxy hides health", func(t *testing.T) {
		for base, code := range map[string]int{f.instances[2].url: http.StatusOK, f.proxy.url: http.StatusNotFound} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+healthPath, nil)
			require.NoError(t, err)
			got, _, err := do(req, new(any))
			require.NoError(t, err)
			assert.Equal(t, code, got, base)
		}
	})
}

// TestServesUntilInterrupted runs the printed commands as a user would.
func TestServesUntilInterrupted(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	r, w := io.Pipe()
	var stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"-addr", anyPort}, w, &stderr)
		w.Close()
	}()
	script, commands, proxy := "set -e\n", 0, ""
	for lines := bufio.NewScanner(r); commands < 5 && lines.Scan(); {
		if base, is := strings.CutPrefix(lines.Text(), "  proxy       http://"); is {
			proxy = base
		}
		command, is := strings.CutPrefix(lines.Text(), "  ")
		if is && (commands > 0 || strings.HasPrefix(command, "TOKEN=")) {
			script += strings.Replace(command, "curl ", "curl --fail --silent --show-error ", 1) + "\n"
			commands++
		}
	}
	require.Equal(t, 5, commands, stderr.String())
	rest := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(r)
		rest <- b
	}()
	t.Run("printed commands", func(t *testing.T) {
		if os.PathSeparator != '/' {
			t.Skip("skipped: the commands are written for a POSIX shell")
		}
		if _, err := exec.LookPath("curl"); err != nil {
			testkit.Missing(t, "curl", "apt-get install curl")
		}
		out, err := exec.CommandContext(ctx, "sh", "-c", script).CombinedOutput()
		require.NoError(t, err, "%s\n%s", script, out)
		for _, part := range []string{`"message":"hello, demo"`, `"token_endpoint":`, `"x5c":`, `{"status":"ok",`} {
			assert.Contains(t, string(out), part)
		}
	})
	idle, err := net.Dial("tcp", proxy) // as a browser does ahead of a request
	require.NoError(t, err)
	defer idle.Close()
	interrupt()
	require.Zero(t, <-ended, stderr.String())
	assert.Contains(t, string(<-rest), "Stopping.")
}

func TestCommandLine(t *testing.T) {
	taken, err := net.Listen("tcp", anyPort)
	require.NoError(t, err)
	defer taken.Close()
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	require.NoError(t, os.WriteFile(garbage, []byte("no keys"), 0o600))
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"help", []string{"-help"}, 0, "-addr host:port"},
		{"unknown flag", []string{"-nope"}, 2, "-nope"},
		{"argument", []string{"nope"}, 2, `unexpected argument "nope"`},
		{"two stores", []string{"-file", "a", "-secret", "b"}, 2, "only one of -file, -secret and -settings"},
		{"port taken", []string{"-addr", taken.Addr().String()}, 1, "choose another address with -addr"},
		{"no settings file", []string{"-addr", anyPort, "-settings", garbage + ".json"}, 1, "garbage.pem.json"},
		{"bad secret name", []string{"-addr", anyPort, "-secret", "openid-server"}, 1, "openid-server"},
		{"garbage in the store", []string{"-addr", anyPort, "-file", garbage}, 1, "garbage.pem"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			assert.Equal(t, c.code, run(t.Context(), c.args, &stdout, &stderr))
			assert.Contains(t, stderr.String(), c.says)
			assert.Empty(t, stdout.String())
		})
	}
}
