package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// This file puts servers side by side behind a proxy. In production they run on
// machines of their own behind a load balancer; each starts as startInstance
// does.

const (
	fleetSize = 3

	// startTimeout bounds the start of an instance. The first secret of an AWS
	// account can take half a minute to create.
	startTimeout = time.Minute

	// shutdownTimeout is how long requests under way may take at the end.
	shutdownTimeout = 2 * time.Second
)

// An openStore opens the store of one instance. Each instance has one of its
// own, as it would have on a machine of its own.
type openStore func(ctx context.Context) (fleetkey.KeyStore, error)

// A fleet is a number of OpenID servers behind a round-robin proxy.
type fleet struct {
	issuer    string // the proxy's URL: all that clients need to know
	clients   map[string]client
	instances []*instance
	proxy     *site
}

// startFleet starts all instances at the same moment, although the store may be
// empty: however many they are, they end up with one key. The proxy takes l.
// The fleet serves until close.
func startFleet(ctx context.Context, l net.Listener, open openStore, clients map[string]client) (*fleet, error) {
	f := &fleet{issuer: siteURL(l), clients: clients, instances: make([]*instance, fleetSize)}
	errs := make([]error, fleetSize)
	var wg sync.WaitGroup
	for i := range f.instances {
		wg.Go(func() {
			store, err := open(ctx)
			if err == nil {
				f.instances[i], err = startInstance(ctx, strconv.Itoa(i+1), store, f.issuer, clients)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	for _, err := range errs { // what stops one stops all, so the first will do
		if err != nil {
			return nil, errors.Join(err, l.Close(), f.close())
		}
	}
	f.proxy = serve(l, roundRobin(f.instances))
	return f, nil
}

// close ends the fleet: first the way in, then the instances.
func (f *fleet) close() error {
	var errs []error
	if f.proxy != nil {
		errs = append(errs, f.proxy.close())
	}
	for _, i := range f.instances {
		if i != nil {
			errs = append(errs, i.close())
		}
	}
	return errors.Join(errs...)
}

// An instance is a server with its signer, on a port of its own.
type instance struct {
	name   string
	signer *fleetkey.Signer
	*site
}

// startInstance is how fleetkey is used: a store, a signer on it, and a server
// that issues and verifies with it. All instances have the same Config.
func startInstance(ctx context.Context, name string, store fleetkey.KeyStore, issuer string, clients map[string]client) (*instance, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{Issuer: issuer, TokenTTL: tokenTTL})
	if err != nil {
		return nil, fmt.Errorf("instance %s: %w", name, err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("instance %s: %w", name, err), signer.Close())
	}
	s := &server{name: name, issuer: issuer, signer: signer, clients: clients}
	return &instance{name, signer, serve(l, s.handler())}, nil
}

func (i *instance) kid() string { return i.signer.Status().SigningKeyID }

func (i *instance) close() error { return errors.Join(i.site.close(), i.signer.Close()) }

// roundRobin passes each request to the next instance, whoever sends it, except
// for health, which load balancers ask of each instance: it names the store and
// what is wrong with it, and that is nobody else's business.
func roundRobin(instances []*instance) http.Handler {
	var targets []*url.URL
	for _, i := range instances {
		targets = append(targets, &url.URL{Scheme: "http", Host: i.addr})
	}
	var n atomic.Uint64
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: 30 * time.Second},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(targets[(n.Add(1)-1)%uint64(len(targets))])
			r.SetXForwarded()
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			slog.Warn("an instance did not answer", "path", r.URL.Path, "err", err)
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/", proxy)
	mux.Handle(healthPath, http.NotFoundHandler())
	return mux
}

// A site is a handler being served on a listener.
type site struct {
	addr, url string
	server    *http.Server
	ended     chan struct{}
}

// serve serves h until close. The listener is there already, so whoever
// connects from now on is answered.
func serve(l net.Listener, h http.Handler) *site {
	const answerWithin = 10 * time.Second // also bounds the look for an unknown key
	s := &site{addr: l.Addr().String(), url: siteURL(l), ended: make(chan struct{})}
	s.server = &http.Server{
		Handler:           http.TimeoutHandler(h, answerWithin, "the answer took too long"),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      answerWithin + 5*time.Second,
		IdleTimeout:       time.Minute, // longer than the proxy's, which then never meets a closed connection
		MaxHeaderBytes:    2 * fleetkey.MaxTokenSize,
	}
	go func() {
		defer close(s.ended)
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("stopped serving", "addr", s.addr, "err", err)
		}
	}()
	return s
}

// close lets requests under way finish, but not for long. A browser that has
// connected ahead of a request to come would hold it up for five seconds.
func (s *site) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		slog.Warn("closing connections still in use", "addr", s.addr)
		err = s.server.Close()
	}
	<-s.ended
	return err
}

// siteURL is where a listener is reached from this machine.
func siteURL(l net.Listener) string {
	host, port, _ := net.SplitHostPort(l.Addr().String())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}
