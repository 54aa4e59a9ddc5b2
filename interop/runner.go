package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	clientTimeout  = time.Minute // for a start, or one answer
	installTimeout = 20 * time.Minute
)

// A service is a running client: it answers 200 and the token's sub claim to a good
// Bearer token, and anything else to a bad one.
type service struct {
	ask  func(ctx context.Context, token string) (answer, error)
	stop func()
}

type answer struct {
	accepted bool
	words    string // the body, and the header that proxies put the sub claim in
}

// prepare installs the runners of some clients.
func prepare(ctx context.Context, clients []*client) {
	var done []*runner
	for _, c := range clients {
		if r := c.runner; !slices.Contains(done, r) {
			done, r.failed = append(done, r), install(ctx, r)
		}
	}
}

func install(ctx context.Context, r *runner) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	for _, args := range r.install {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = r.folder
		cmd.Env = append(os.Environ(), "GOBIN="+bin)
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, output)
		}
	}
	return nil
}

// start starts the client's process, which must trust a fleet, and waits until it answers.
func (c *client) start(ctx context.Context, f *fleet) (*service, error) {
	if c.runner.failed != nil {
		return nil, c.runner.failed
	}
	dir := must(os.MkdirTemp(f.dir, ""))
	vars := f.variables(c, dir)
	if template := c.runner.config; template != "" {
		vars["CONFIG"] = filepath.Join(dir, filepath.Base(template))
		config := fill(string(must(os.ReadFile(template))), vars, f.keyFiles(dir))
		check(os.WriteFile(vars["CONFIG"], []byte(config), 0o600))
	}
	var args, env []string
	for _, a := range c.runner.command {
		args = append(args, os.Expand(a, func(name string) string { return vars[name] }))
	}
	for name, value := range vars {
		env = append(env, name+"="+value)
	}
	ctx, cancel := context.WithCancel(ctx)
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.runner.folder, append(os.Environ(), env...), &output, &output
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	s := &service{ask: asker("http://127.0.0.1:" + vars["PORT"]), stop: func() { cancel(); <-ended }}
	for deadline := time.Now().Add(clientTimeout); ; {
		_, err := s.ask(ctx, "none")
		if err == nil {
			return s, nil
		}
		select {
		case <-ended:
			s.stop()
			return nil, fmt.Errorf("%s ended: %s", strings.Join(args, " "), output.String())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("%s does not answer: %w: %s", strings.Join(args, " "), err, output.String())
		}
	}
}

// fill fills in a configuration. A line with ${KEY} is repeated for each key file.
func fill(template string, vars map[string]string, keyFiles []string) string {
	var b strings.Builder
	for line := range strings.Lines(template) {
		files := []string{""}
		if strings.Contains(line, "${KEY}") {
			files = keyFiles
		}
		for _, file := range files {
			b.WriteString(os.Expand(line, func(name string) string {
				if name == "KEY" {
					return file
				}
				return vars[name]
			}))
		}
	}
	return b.String()
}

// asker returns a function that sends tokens to the service at a URL.
func asker(url string) func(context.Context, string) (answer, error) {
	browser := &http.Client{Timeout: clientTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(ctx context.Context, token string) (answer, error) {
		r := must(http.NewRequestWithContext(ctx, http.MethodGet, url, nil))
		r.Header.Set("Authorization", "Bearer "+token)
		response, err := browser.Do(r)
		if err != nil {
			return answer{}, err
		}
		body, err := io.ReadAll(response.Body)
		words := strings.Join(strings.Fields(string(body)+" "+response.Header.Get("X-Auth-Request-User")), " ")
		return answer{response.StatusCode == http.StatusOK, words}, errors.Join(err, response.Body.Close())
	}
}

// freePort returns a port that nobody listens at.
func freePort() string {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	check(err)
	return port
}

// version returns the client's version from its lock file, or from the client itself.
func (c *client) version() string {
	text := fmt.Sprintln(c.runner.install)
	if c.runner.versions != "" {
		file, _ := os.ReadFile(filepath.Join(c.runner.folder, c.runner.versions)) // without it there is no version
		text += string(file)
	}
	if len(c.runner.version) > 0 {
		output, _ := exec.Command(c.runner.version[0], c.runner.version[1:]...).Output()
		text += string(output)
	}
	pinned := regexp.MustCompile(`(?i)` + regexp.QuoteMeta(cmp.Or(c.pin, c.name)) + `(?:/v\d+)?[^\d\n]*\n?[^\d\n]*([\d.]*\d)`)
	if m := pinned.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return "of unknown version"
}
