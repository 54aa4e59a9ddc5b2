package awsfake

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing/iotest"
)

// HTTPClient returns a client that passes every request, for any host, to the server by a
// function call. It never waits for a socket, so a testing/synctest bubble can detect when
// all its goroutines are idle.
func (s *Server) HTTPClient() *http.Client {
	return &http.Client{Transport: transport{s}}
}

type transport struct{ server *Server }

var errDropped = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

// RoundTrip turns an aborted handler into what a client sees of it: a dropped
// connection, or a body that breaks off.
func (t transport) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer r.Body.Close()
	w := httptest.NewRecorder()
	defer func() {
		if p := recover(); p == nil {
			return
		} else if p != http.ErrAbortHandler {
			panic(p)
		}
		switch ended := r.Context().Err(); {
		case ended != nil:
			resp, err = nil, ended
		case w.Body.Len() == 0:
			resp, err = nil, errDropped
		default:
			resp = w.Result()
			resp.Body = io.NopCloser(io.MultiReader(w.Body, iotest.ErrReader(io.ErrUnexpectedEOF)))
		}
	}()
	t.server.ServeHTTP(w, r)
	return w.Result(), nil
}
