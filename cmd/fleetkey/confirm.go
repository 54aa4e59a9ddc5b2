package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/term"
)

// This file asks the person at the terminal.

// consent is the flag of commands that change keys others rely on.
type consent struct {
	Yes bool `short:"y" help:"Do it without asking."`
}

var errUnconfirmed = errors.New("not confirmed, nothing was changed")

// confirm asks whether to go on. Without a terminal there is nobody to ask, so
// it refuses.
func (c consent) confirm(a *app, what string) error {
	if c.Yes {
		return nil
	}
	if !term.IsTerminal(int(a.stdin.Fd())) {
		return fmt.Errorf("%w: this would %s; there is no terminal to ask at, so give --yes if that is meant", errUnconfirmed, what)
	}
	_, _ = fmt.Fprintf(a.stderr, "This will %s.\nGo on? Type yes: ", what)
	answer, err := a.await(bufio.NewReader(a.stdin).ReadString)
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return errUnconfirmed
	}
	return nil
}

// readSecret asks for a password, without showing it.
func (a *app) readSecret(prompt string) (string, error) {
	fd := int(a.stdin.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", errors.New("there is no terminal to ask at")
	}
	defer func() { _ = term.Restore(fd, state) }() // also when the question was broken off
	_, _ = fmt.Fprint(a.stderr, prompt)
	secret, err := a.await(func(byte) (string, error) {
		secret, err := term.ReadPassword(fd)
		return string(secret), err
	})
	a.note("")
	return secret, err
}

// await reads a line, or gives up when the user does.
func (a *app) await(read func(byte) (string, error)) (string, error) {
	type line struct {
		text string
		err  error
	}
	lines := make(chan line, 1)
	go func() {
		text, err := read('\n')
		lines <- line{text, err}
	}()
	select {
	case l := <-lines:
		return l.text, l.err
	case <-a.ctx.Done():
		return "", a.ctx.Err()
	}
}
