package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file lets the page show the store without reading it, and make it fail.

// A tap is what the page learns about the store from the instances' reads and writes.
type tap struct {
	failing atomic.Bool // the page has switched the store off
	held    atomic.Pointer[held]
}

// held is the store's content when an instance last read or saved it.
type held struct {
	Version fleetkey.Version `json:"version"`
	Blocks  []block          `json:"blocks"`
}

// A block is one of a bundle's PEM blocks, without its secret content.
type block struct {
	Type string `json:"type"`
	Says string `json:"says"`
}

type tapped struct {
	fleetkey.KeyStore
	tap *tap
}

func (s tapped) String() string { return fmt.Sprint(s.KeyStore) }

func (s tapped) Load(ctx context.Context) ([]byte, fleetkey.Version, error) {
	if s.tap.failing.Load() {
		return nil, "", fmt.Errorf("%v was switched off on the page: %w", s, fleetkey.ErrUnavailable)
	}
	bundle, version, err := s.KeyStore.Load(ctx)
	if err == nil {
		s.tap.see(bundle, version)
	}
	return bundle, version, err
}

func (s tapped) Save(ctx context.Context, bundle []byte, prev fleetkey.Version) (fleetkey.Version, error) {
	if s.tap.failing.Load() {
		return "", fmt.Errorf("%v was switched off on the page: %w", s, fleetkey.ErrUnavailable)
	}
	version, err := s.KeyStore.Save(ctx, bundle, prev)
	if err == nil {
		s.tap.see(bundle, version)
	}
	return version, err
}

func (t *tap) see(bundle []byte, version fleetkey.Version) {
	if last := t.held.Load(); last != nil && last.Version == version {
		return
	}
	h := &held{Version: version}
	for b, rest := pem.Decode(bundle); b != nil; b, rest = pem.Decode(rest) {
		says := "kid " + b.Headers["Kid"]
		switch b.Type {
		case "PRIVATE KEY":
			says = "not shown"
		case "CERTIFICATE":
			if cert, err := x509.ParseCertificate(b.Bytes); err == nil {
				says = "signs from " + cert.NotBefore.Format(time.DateTime) + " UTC"
			}
		case "RETIRED KEY":
			says += ", trusted until " + b.Headers["Until"]
		}
		h.Blocks = append(h.Blocks, block{b.Type, says})
	}
	t.held.Store(h)
}
