package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	clientTimeout  = time.Minute // for one answer
	installTimeout = 10 * time.Minute
)

// startProcesses starts the clients in other languages, which run until ctx ends. One
// that cannot be installed or started is broken.
func startProcesses(ctx context.Context, authorityFile string) []*client {
	var clients []*client
	installed := make(map[string]error)
	for _, p := range processes {
		c := &client{name: p.name, language: p.language, lacks: p.lacks}
		err, done := installed[p.language]
		if !done {
			err = install(ctx, p.language)
			installed[p.language] = err
		}
		if err == nil {
			err = c.start(ctx, p.command, authorityFile)
		}
		if err != nil {
			c.broken = fmt.Errorf("cannot be started: %w", err)
		}
		clients = append(clients, c)
	}
	return clients
}

func install(ctx context.Context, language string) error {
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	for _, command := range installs[language] {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Dir = strings.ToLower(language)
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, output)
		}
	}
	return nil
}

// start starts a client, whose first line says its version. It reads a request a
// line and writes an answer a line. Its environment has the authority under every name
// that a language looks for.
func (c *client) start(ctx context.Context, command []string, authorityFile string) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = strings.ToLower(c.language)
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+authorityFile, "SSL_CERT_FILE="+authorityFile, "FLEETKEY_AUTHORITY="+authorityFile)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2, cmd.Start()); err != nil {
		return err
	}
	requests, answers := json.NewEncoder(stdin), json.NewDecoder(stdout)
	read := func(v any) error {
		hung := time.AfterFunc(clientTimeout, func() { _ = cmd.Process.Kill() })
		defer hung.Stop()
		return answers.Decode(v)
	}
	c.verify = func(r request) (a answer, err error) {
		if err := requests.Encode(r); err != nil {
			return a, err
		}
		return a, read(&a)
	}
	var first struct{ Version string }
	err = read(&first)
	c.version = first.Version
	return err
}
