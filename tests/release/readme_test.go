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
