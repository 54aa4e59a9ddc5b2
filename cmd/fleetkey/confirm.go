package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// This file reads input from outside, and asks the person at the terminal.

// consent is the flag of commands that change keys in use.
type consent struct {
	Yes bool `short:"y" help:"Do not ask for confirmation."`
}

var errUnconfirmed = errors.New("not confirmed; nothing was changed")

// confirm asks for confirmation. Without a terminal it refuses.
func (c consent) confirm(a *app, what string) error {
	if c.Yes {
		return nil
	}
	if !term.IsTerminal(int(a.stdin.Fd())) {
		return fmt.Errorf("%w: this would %s; there is no terminal to confirm this, so give --yes to proceed", errUnconfirmed, what)
	}
	_, _ = fmt.Fprintf(a.stderr, "This will %s.\nContinue? Type yes: ", what)
	answer, err := await(a.ctx, func() (string, error) { return bufio.NewReader(a.stdin).ReadString('\n') })
	if err != nil || strings.TrimSpace(answer) != "yes" {
		return errUnconfirmed
	}
	return nil
}

// readSecret asks for a password without echo.
func (a *app) readSecret(prompt string) (string, error) {
	fd := int(a.stdin.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return "", errors.New("there is no terminal to ask for it")
	}
	defer func() { _ = term.Restore(fd, state) }() // even after an interrupt
	_, _ = fmt.Fprint(a.stderr, prompt)
	secret, err := await(a.ctx, func() ([]byte, error) { return term.ReadPassword(fd) })
	a.note("")
	return string(secret), err
}

// readInput reads a file given by the user, or standard input for "-". A pipe, such as
// bash's <(command), may never end; reading stops after --timeout or on an interrupt.
func (a *app) readInput(path string, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(a.ctx, a.timeout)
	defer cancel()
	open, what := func() (*os.File, error) { return openInput(path) }, strconv.Quote(path)
	if path == "-" { // a person may type there
		ctx, open, what = a.ctx, func() (*os.File, error) { return a.stdin, nil }, "standard input"
	}
	data, err := await(ctx, func() ([]byte, error) {
		file, err := open()
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		data, err := io.ReadAll(io.LimitReader(file, limit+1))
		if err == nil && int64(len(data)) > limit {
			err = fmt.Errorf("more than %d bytes", limit)
		}
		return data, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("its data did not end within %s; does anything write to this pipe? (%w)", a.timeout, err)
	}
	if about, ok := errors.AsType[*fs.PathError](err); ok {
		err = about.Err // without the path again
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return data, nil
}

func openInput(path string) (*os.File, error) {
	info, err := os.Stat(path) // opening a device can have side effects
	if err == nil && info.Mode()&fs.ModeDevice != 0 {
		err = errors.New("a device, not a file")
	}
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// await waits for something that may block forever, until the context ends.
func await[T any](ctx context.Context, get func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	results := make(chan result, 1)
	go func() {
		value, err := get()
		results <- result{value, err}
	}()
	select {
	case r := <-results:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
