package main

import (
	"archive/zip"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/tests/testkit"
)

// An instance is a process of the program that stands in the source bundle,
// started as Elastic Beanstalk starts it: the Procfile's command, in the
// directory of the unpacked bundle, with the environment properties and nothing
// else in its environment.
type instance struct {
	name, port string
	dir        string
	command    []string
	env        []string
	log        string // file
	cmd        *exec.Cmd
}

// unpackBundle makes the bundle as "make" does, but for this machine, unpacks
// it, and returns the directory and the command of the Procfile.
func unpackBundle(t *testing.T) (dir string, command []string) {
	if _, err := exec.LookPath("python3"); err != nil {
		testkit.Missing(t, "python3, which packs the bundle", "apt-get install python3")
	}
	built, dir := t.TempDir(), t.TempDir()
	bundle := filepath.Join(built, "bundle.zip")
	out, err := exec.Command("make", "bundle", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH,
		"BIN="+filepath.Join(built, "bin"), "BUNDLE="+bundle).CombinedOutput()
	require.NoError(t, err, string(out))
	archive, err := zip.OpenReader(bundle)
	require.NoError(t, err)
	defer archive.Close()
	for _, f := range archive.File {
		unpack(t, f, filepath.Join(dir, filepath.FromSlash(f.Name)))
	}
	procfile, err := os.ReadFile(filepath.Join(dir, "Procfile"))
	require.NoError(t, err)
	web, ok := strings.CutPrefix(string(procfile), "web: ")
	require.True(t, ok, "the Procfile's first process has to be web")
	return dir, strings.Fields(web)
}

func unpack(t *testing.T, f *zip.File, path string) {
	if f.FileInfo().IsDir() {
		require.NoError(t, os.MkdirAll(path, 0o755))
		return
	}
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	in, err := f.Open()
	require.NoError(t, err)
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, f.Mode())
	require.NoError(t, err)
	_, err = io.Copy(out, in)
	require.NoError(t, err)
	require.NoError(t, out.Close())
}

// readProperties returns the options of .ebextensions/fleet.config by namespace.
// It knows as much YAML as that file needs.
func readProperties(t *testing.T, dir string) map[string]map[string]string {
	text, err := os.ReadFile(filepath.Join(dir, ".ebextensions", "fleet.config"))
	require.NoError(t, err)
	options := map[string]map[string]string{}
	namespace := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		option, indented := strings.CutPrefix(line, "    ")
		name, isNamespace := strings.CutPrefix(line, "  ")
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "#"):
		case indented:
			key, value, ok := strings.Cut(option, ": ")
			require.True(t, ok, line)
			options[namespace][key] = strings.Trim(value, `"`)
		case isNamespace:
			namespace = strings.TrimSuffix(name, ":")
			options[namespace] = map[string]string{}
		}
	}
	return options
}

func (i *instance) addr() string { return net.JoinHostPort("127.0.0.1", i.port) }
func (i *instance) url() string  { return "http://" + i.addr() }

func (i *instance) start(t *testing.T) {
	i.cmd = exec.Command(filepath.Join(i.dir, i.command[0]), i.command[1:]...)
	i.cmd.Dir, i.cmd.Env = i.dir, i.env
	startProcess(t, i.cmd, i.log)
}

// kill ends the process as a crash would.
func (i *instance) kill(t *testing.T) {
	require.NoError(t, i.cmd.Process.Kill())
	_ = i.cmd.Wait()
}

// terminate ends it as Elastic Beanstalk does before a new version.
func (i *instance) terminate(t *testing.T) {
	require.NoError(t, i.cmd.Process.Signal(syscall.SIGTERM))
	assert.NoError(t, i.cmd.Wait(), "%s, after SIGTERM:\n%s", i.name, i.logged(t))
}

func (i *instance) logged(t *testing.T) string {
	text, err := os.ReadFile(i.log)
	require.NoError(t, err)
	return string(text)
}

// startProcess starts a command that ends with the test, if not before.
func startProcess(t *testing.T, cmd *exec.Cmd, log string) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
}

// freePort returns a port that nobody listens on.
func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}
