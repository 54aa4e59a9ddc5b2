package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// This file runs the clients of other languages: each is a process that reads a
// request a line and writes an answer a line.

const (
	clientTimeout  = time.Minute
	installTimeout = 10 * time.Minute
)

// An external is a client that has to be installed and started.
type external struct {
	about
	dir     string     // its folder, where all commands run
	needs   []string   // programs that have to be on the machine
	install [][]string // commands; one that two clients share runs once
	command []string
}

// externals returns the clients in other languages.
func externals() []external {
	npm := [][]string{{"npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"}}
	python := filepath.Join(".venv", "bin", "python")
	if runtime.GOOS == "windows" {
		python = filepath.Join(".venv", "Scripts", "python.exe")
	}
	return []external{
		{
			about: about{name: "jose", language: "Node"},
			dir:   "node", needs: []string{"node", "npm"}, install: npm, command: []string{"node", "jose.mjs"},
		},
		{
			about: about{name: "aws-jwt-verify", language: "Node", lacks: []string{"PS256"}},
			dir:   "node", needs: []string{"node", "npm"}, install: npm, command: []string{"node", "aws-jwt-verify.mjs"},
		},
		{
			about: about{name: "PyJWT", language: "Python"},
			dir:   "python", needs: []string{"python3"},
			install: [][]string{
				{"python3", "-m", "venv", ".venv"},
				{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"},
			},
			command: []string{python, "client.py"},
		},
		{
			about: about{name: "nimbus-jose-jwt", language: "Java"},
			dir:   "java", needs: []string{"java", "javac", "mvn"},
			install: [][]string{{"mvn", "--quiet", "--batch-mode", "compiler:compile", "dependency:copy-dependencies"}},
			command: []string{"java", "-cp", filepath.Join("target", "classes") + string(os.PathListSeparator) + filepath.Join("target", "dependency", "*"), "Client"},
		},
	}
}

// missing returns which of the needed programs are not on the machine.
func (e *external) missing() error {
	var absent []string
	for _, program := range e.needs {
		if _, err := exec.LookPath(program); err != nil {
			absent = append(absent, program)
		}
	}
	if len(absent) > 0 {
		return fmt.Errorf("not on this machine: %s", strings.Join(absent, ", "))
	}
	return nil
}

// start installs the client's libraries and starts it.
func (e *external) start(ctx context.Context, root, authorityFile string, done map[string]bool) (client, error) {
	dir := filepath.Join(root, e.dir)
	for _, command := range e.install {
		id := e.dir + " " + strings.Join(command, " ")
		if done[id] {
			continue
		}
		if err := runIn(ctx, dir, command); err != nil {
			return nil, err
		}
		done[id] = true
	}
	return startProcess(ctx, e.about, dir, e.command, authorityFile)
}

func runIn(ctx context.Context, dir string, command []string) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	output, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("in %s: %s: %w\n%s", dir, strings.Join(command, " "), err, output)
	}
	return nil
}

// A process is a client that runs.
type process struct {
	what    about
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	answers chan []byte // closed at the process's end
	broken  error       // after it, answers and requests may not match any more
}

// A brokenError is about the client's process, not about a token.
type brokenError struct{ error }

// startProcess starts a client, whose first line tells its version. It is told
// of the authority in every way that its language knows.
func startProcess(ctx context.Context, a about, dir string, command []string, authorityFile string) (*process, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+authorityFile, "SSL_CERT_FILE="+authorityFile, "FLEETKEY_AUTHORITY="+authorityFile)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", a.name, err)
	}
	p := &process{what: a, cmd: cmd, stdin: stdin, answers: make(chan []byte)}
	go p.read(stdout)
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	var first struct{ Version string }
	if err := p.next(ctx, &first); err != nil {
		p.close()
		return nil, fmt.Errorf("start %s: %w", a.name, err)
	}
	p.what.version = first.Version
	return p, nil
}

func (p *process) read(stdout io.Reader) {
	defer close(p.answers)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		p.answers <- []byte(lines.Text())
	}
}

func (p *process) next(ctx context.Context, v any) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("no answer: %w", ctx.Err())
	case line, ok := <-p.answers:
		if !ok {
			return errors.New("the process has ended")
		}
		if err := json.Unmarshal(line, v); err != nil {
			return fmt.Errorf("answer %q: %w", line, err)
		}
		return nil
	}
}

func (p *process) about() about { return p.what }

// close ends the process: the end of its input is its sign to go.
func (p *process) close() {
	_ = p.stdin.Close()
	kill := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	for range p.answers { // so that the reader ends
	}
	_ = p.cmd.Wait() // what it had to say, it has said
}

func (p *process) verify(ctx context.Context, r request) (string, error) {
	if p.broken != nil {
		return "", p.broken
	}
	var a answer
	if err := p.ask(ctx, r, &a); err != nil {
		p.broken = brokenError{fmt.Errorf("%s: %w", p.what.name, err)}
		return "", p.broken
	}
	if a.Error != "" {
		return "", errors.New(a.Error)
	}
	return a.Subject, nil
}

func (p *process) ask(ctx context.Context, r request, a *answer) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := p.stdin.Write(append(line, '\n')); err != nil {
		return err
	}
	return p.next(ctx, a)
}
