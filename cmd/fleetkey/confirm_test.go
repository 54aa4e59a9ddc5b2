package main

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

// A question at the terminal ends with Ctrl-C, although nobody has answered.
func TestInterruptedQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, interrupt := context.WithCancel(t.Context())
		answer, typed := io.Pipe()
		defer func() { _ = typed.Close() }() // lets the reader go
		result := make(chan error)
		go func() {
			_, err := (&app{ctx: ctx}).await(func(byte) (string, error) {
				_, err := answer.Read(make([]byte, 1))
				return "", err
			})
			result <- err
		}()
		synctest.Wait()
		select {
		case err := <-result:
			t.Fatalf("answered by nobody: %v", err)
		default:
		}
		interrupt()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	})
}
