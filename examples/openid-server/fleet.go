package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey"
)

// This file puts servers side by side behind a proxy. In production each runs on
// its own machine behind a load balancer, and starts as startInstance does.

const fleetSize = 3

// A fleet is a number of OpenID servers behind a round-robin proxy.
type fleet struct {
	issuer    string // the proxy's URL: all that clients need to know
	client    client
	instances [fleetSize]*instance
	proxy     *http.Server
}

// startFleet starts all instances at the same moment, although the store may be
// empty: however many they are, they end up with one key. The proxy takes l. Each
// instance opens the store for itself, as it would on its own machine.
func startFleet(ctx context.Context, l net.Listener, open func() (fleetkey.KeyStore, error), c client) (*fleet, error) {
	f := &fleet{issuer: "http://" + l.Addr().String(), client: c}
	var errs [fleetSize]error
	var wg sync.WaitGroup
	for i := range f.instances {
		wg.Go(func() {
			store, err := open()
			if err == nil {
				f.instances[i], err = startInstance(ctx, strconv.Itoa(i+1), store, f.issuer, c)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	f.proxy = serve(l, f.roundRobin())
	for _, err := range errs { // what stops one stops all, so the first will do
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	return f, nil
}

// close ends the fleet: first the way in, then the instances.
func (f *fleet) close() error {
	errs := []error{f.proxy.Close()}
	for _, i := range f.instances {
		if i != nil {
			errs = append(errs, i.close())
		}
	}
	return errors.Join(errs...)
}

// An instance is a server with its signer, on its own port.
type instance struct {
	name, url string
	signer    *fleetkey.Signer
	server    *http.Server
}

// startInstance is how fleetkey is used: a store, a signer on it, and a server
// that issues and verifies with it. All instances have the same Config.
func startInstance(ctx context.Context, name string, store fleetkey.KeyStore, issuer string, c client) (*instance, error) {
	// The first secret of an AWS account can take half a minute to create.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{Issuer: issuer, TokenTTL: tokenTTL})
	if err != nil {
		return nil, fmt.Errorf("instance %s: %w", name, err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("instance %s: %w", name, err), signer.Close())
	}
	s := &server{name: name, issuer: issuer, signer: signer, client: c}
	return &instance{name, "http://" + l.Addr().String(), signer, serve(l, s.handler())}, nil
}

func (i *instance) kid() string { return i.signer.Status().SigningKeyID }

func (i *instance) close() error { return errors.Join(i.server.Close(), i.signer.Close()) }

// roundRobin passes each request to the next instance, whoever sends it. It hides
// health, which load balancers ask of each instance: the answer names the store
// and its errors, and that is nobody else's business.
func (f *fleet) roundRobin() http.Handler {
	var n atomic.Uint64
	mux := http.NewServeMux()
	mux.Handle(healthPath, http.NotFoundHandler())
	mux.Handle("/", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		target, _ := url.Parse(f.instances[(n.Add(1)-1)%fleetSize].url)
		r.SetURL(target)
		r.SetXForwarded()
	}})
	return mux
}

// serve serves h until Close. The listener is there already, so every
// connection from here on is answered.
func serve(l net.Listener, h http.Handler) *http.Server {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       2 * time.Minute, // longer than the proxy's 90 s, which then never meets a closed connection
	}
	go func() { _ = server.Serve(l) }() // until Close
	return server
}
