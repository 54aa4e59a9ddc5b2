// Package release proves that strangers can use what a release would publish. It makes a
// release in a clone of this checkout, and serves its modules from a file:// module proxy that
// precedes the usual ones. It takes a minute, mostly to compile, and has no long form.
package release

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey/tests/docs"
)

const (
	path    = "github.com/fleetkey/fleetkey"
	version = "v0.1.0"
)

// A stranger has a clone with a release, and a go command that gets it from a module proxy.
type stranger struct {
	t     *testing.T
	clone string
	env   []string
}

func TestRelease(t *testing.T) {
	if os.Getenv("FLEETKEY_REQUIRE") == "" {
		t.Skip("skipped: installing a release from a module proxy; make check does it")
	}
	s := newStranger(t)
	t.Run("follow README.md", s.followReadme)
	for _, page := range docs.Pages(t) {
		if commands := s.documented(t, page); page != "README.md" && commands != nil {
			t.Run("run the commands of "+page, func(t *testing.T) {
				dir := t.TempDir()
				s.run(dir, "go", "mod", "init", "example.com/stranger")
				for _, command := range commands {
					s.run(dir, "sh", "-c", command)
				}
			})
		}
	}
	t.Run("use a module that needs the library", func(t *testing.T) {
		dir := t.TempDir()
		program := "package main\n\nimport \"" + path + "/otelfleetkey\"\n\nfunc main() { _ = otelfleetkey.Name }\n"
		require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o600))
		s.run(dir, "go", "mod", "init", "example.com/stranger")
		s.run(dir, "go", "get", path+"/otelfleetkey@"+version)
		s.run(dir, "go", "run", ".")
	})
	t.Run("copy the examples", func(t *testing.T) {
		s.run(s.clone, "git", "checkout", "-q", version)
		for _, module := range s.modules() {
			if strings.HasPrefix(module, "examples/") {
				dir := filepath.Join(t.TempDir(), "copy")
				require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join(s.clone, module))))
				s.run(dir, "go", "vet", "./...")
			}
		}
	})
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	s := &stranger{t: t, clone: filepath.Join(t.TempDir(), "clone"), env: append(os.Environ(), "GOWORK=off", "GOFLAGS=-trimpath -modcacherw",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")}
	checkout := strings.TrimSpace(s.run(".", "git", "rev-parse", "--show-toplevel"))
	s.run(".", "git", "clone", "-q", checkout, s.clone)
	s.run(s.clone, ".ci/release", version)

	// Go fetches the modules from the clone by git, as a module proxy does from the
	// repository. Its cache has the layout of a proxy.
	fetched := t.TempDir()
	fetch := []string{"env", "GOMODCACHE=" + fetched, "GOPROXY=direct", "GOPRIVATE=" + path,
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url.file://" + s.clone + "/.insteadOf", "GIT_CONFIG_VALUE_0=https://" + path, "go", "mod", "download", path + "@" + version}
	for _, module := range s.modules() {
		fetch = append(fetch, path+"/"+module+"@"+version)
	}
	s.run(t.TempDir(), fetch...)
	usual := strings.Fields(s.run(".", "go", "env", "GOMODCACHE", "GOPROXY"))
	s.env = append(s.env, "GOMODCACHE="+t.TempDir(), "GONOSUMDB="+path,
		"GOPROXY=file://"+fetched+"/cache/download,file://"+usual[0]+"/cache/download,"+usual[1])
	return s
}

// modules returns the folders of the modules that the release has tagged, except the root.
func (s *stranger) modules() (folders []string) {
	for tag := range strings.FieldsSeq(s.run(s.clone, "git", "tag")) {
		if folder, ok := strings.CutSuffix(tag, "/"+version); ok {
			folders = append(folders, folder)
		}
	}
	return folders
}

func (s *stranger) run(dir string, args ...string) string {
	s.t.Helper()
	cmd := exec.CommandContext(s.t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, s.env
	out, err := cmd.CombinedOutput()
	require.NoError(s.t, err, "%v in %s:\n%s", args, dir, out)
	return string(out)
}

// followReadme does what README.md says, block by block, as a newcomer who has that page and
// Go: a server, a service that verifies its tokens, a unit test, the example and the tool.
func (s *stranger) followReadme(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	s.env = append(s.env, "GOBIN="+bin)
	ports := strings.NewReplacer("localhost:8080", freeAddress(t), "localhost:8081", freeAddress(t))
	for _, paths := range docs.WritePrograms(t, "README.md", dir) {
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, []byte(ports.Replace(string(text))), 0o600))
		}
	}
	var printed string
	for _, command := range s.documented(t, "README.md") {
		switch folder, server := strings.CutPrefix(command, "go run ./"); {
		case server:
			s.run(dir, "go", "build", "-o", filepath.Join(dir, folder+".exe"), "./"+folder)
			printed += start(t, dir, filepath.Join(dir, folder+".exe"), folder == "server")
		case strings.HasPrefix(command, "go run "):
			s.run(dir, "sh", "-c", command+" -once -addr 127.0.0.1:0")
		default:
			s.run(dir, "sh", "-c", command)
		}
	}
	require.Contains(t, s.run(bin, filepath.Join(bin, "fleetkey"), "--version"), version)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second / 10) {
		answer, err := exec.CommandContext(t.Context(), "sh", "-c", "curl -sS "+strings.TrimPrefix(printed, "curl")).CombinedOutput()
		if err == nil && string(answer) == "orders of alice\n" {
			return
		}
		require.True(t, time.Now().Before(deadline), "%s answers %s", printed, answer)
	}
}

// documented returns the commands of a page that a stranger runs.
func (s *stranger) documented(t *testing.T, page string) (commands []string) {
	for _, b := range docs.Blocks(t, page) {
		if b.Note == docs.RunBy+"tests/release" {
			commands = append(commands, b.Commands()...)
		}
	}
	return commands
}

// start runs a server until the test ends, and returns the first line that it prints, if it
// prints any.
func start(t *testing.T, dir, program string, prints bool) (line string) {
	cmd := exec.Command(program)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if prints {
		line, err = bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
	}
	return line
}

func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
