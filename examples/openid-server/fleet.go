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

// This file runs servers side by side behind a proxy. In production, each has its own machine
// behind a load balancer, and starts as in startInstance.

const (
	fleetSize = 3

	// Far shorter than in production, so that the page shows the whole life of a key in
	// about a minute.
	tokenTTL     = time.Minute
	clockSkew    = time.Second
	refreshEvery = 2 * time.Second
	jwksMaxAge   = 4 * time.Second
	announce     = 10 * time.Second
	retain       = tokenTTL + 2*clockSkew
)

// A fleet is a number of OpenID servers behind a round-robin proxy.
type fleet struct {
	issuer string // the proxy's URL, the only address that clients need
	client client
	open   func() (fleetkey.KeyStore, error)
	proxy  *http.Server

	mu        sync.RWMutex
	instances [fleetSize]*instance // nil: stopped
}

// startFleet starts all instances at the same moment. Even if the store is empty, they all
// end up with the same key. Each instance opens the store itself, as it would on its own
// machine.
func startFleet(ctx context.Context, issuer string, open func() (fleetkey.KeyStore, error), c client) (*fleet, error) {
	f := &fleet{issuer: issuer, client: c, open: open}
	var errs [fleetSize]error
	var wg sync.WaitGroup
	for i := range f.instances {
		wg.Go(func() { errs[i] = f.start(ctx, i) })
	}
	wg.Wait()
	for _, err := range errs { // all fail for the same reason, so one error is enough
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	return f, nil
}

// start starts a stopped instance.
func (f *fleet) start(ctx context.Context, i int) error {
	store, err := f.open()
	if err != nil {
		return err
	}
	started, err := startInstance(ctx, strconv.Itoa(i+1), store, f.issuer, f.client)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.instances[i] != nil {
		return started.close() // another request was faster
	}
	f.instances[i] = started
	return nil
}

// stop removes an instance from the proxy and then closes it.
func (f *fleet) stop(i int) error {
	f.mu.Lock()
	stopped := f.instances[i]
	f.instances[i] = nil
	f.mu.Unlock()
	if stopped == nil {
		return nil
	}
	return stopped.close()
}

func (f *fleet) running() (running []*instance) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for _, i := range f.instances {
		if i != nil {
			running = append(running, i)
		}
	}
	return running
}

// serve starts the proxy, with a page for the operator.
func (f *fleet) serve(l net.Listener, page http.Handler) {
	mux := http.NewServeMux()
	mux.Handle("/{$}", page)
	mux.Handle("/fleet/", page)
	mux.Handle("/", f.roundRobin())
	f.proxy = serve(l, mux)
}

// close closes the proxy and then the instances.
func (f *fleet) close() error {
	var errs []error
	if f.proxy != nil {
		errs = append(errs, f.proxy.Close())
	}
	for i := range f.instances {
		errs = append(errs, f.stop(i))
	}
	return errors.Join(errs...)
}

// An instance is a server with its signer, on its own port.
type instance struct {
	name, url string
	signer    *fleetkey.Signer
	server    *http.Server
}

// startInstance shows how to use fleetkey: a store, a signer that uses it, and a server that
// issues and verifies tokens with the signer. All instances have the same Config.
func startInstance(ctx context.Context, name string, store fleetkey.KeyStore, issuer string, c client) (*instance, error) {
	// The first secret of an AWS account can take half a minute to create.
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{
		Issuer: issuer, TokenTTL: tokenTTL, MaxTokenTTL: tokenTTL,
		ClockSkew: clockSkew, RefreshEvery: refreshEvery, JWKSMaxAge: jwksMaxAge,
		Rotation: fleetkey.Rotation{Announce: announce, Retain: retain},
	})
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

// number counts from 0.
func (i *instance) number() int {
	n, _ := strconv.Atoi(i.name)
	return n - 1
}

// close lets running requests finish and closes the instance.
func (i *instance) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if i.server.Shutdown(ctx) != nil {
		_ = i.server.Close()
	}
	return i.signer.Close()
}

// roundRobin forwards each request to the next running instance. It hides the health check,
// which load balancers request from each instance directly, because the answer names the
// store and its errors.
func (f *fleet) roundRobin() http.Handler {
	var n atomic.Uint64
	mux := http.NewServeMux()
	mux.Handle(healthPath, http.NotFoundHandler())
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		running := f.running()
		if len(running) == 0 {
			http.Error(w, "no instance runs", http.StatusServiceUnavailable)
			return
		}
		target, _ := url.Parse(running[(n.Add(1)-1)%uint64(len(running))].url)
		proxy := httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.SetXForwarded()
		}}
		proxy.ServeHTTP(w, r)
	})
	return mux
}

// serve serves h until Close. The listener is already open, so every later connection gets an
// answer.
func serve(l net.Listener, h http.Handler) *http.Server {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       2 * time.Minute, // longer than the proxy's 90 s, so the proxy never uses a closed connection
	}
	go func() { _ = server.Serve(l) }() // until Close
	return server
}
