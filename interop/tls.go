package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
)

// startServer serves h by TLS on a free port of 127.0.0.1, because some clients insist
// on https. It also returns the server's certificate, which clients must trust, as PEM.
func startServer(h http.Handler) (server *httptest.Server, authority []byte) {
	server = httptest.NewTLSServer(h)
	return server, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}
