// Command prometheus is a server that signs with fleetkey and shows what its
// signer does at /metrics. Beside it lie a Grafana dashboard of these metrics,
// dashboard.json, and alert rules, alerts.yaml.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/otelfleetkey"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9464", "`host:port` to serve at")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends. The key is kept in a directory that ends with it.
func run(ctx context.Context, addr string, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "fleetkey-prometheus-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	signer, err := fleetkey.NewSigner(ctx, fleetkey.NewFileStore(filepath.Join(dir, "keys.pem")), fleetkey.Config{
		Issuer:   "https://prometheus.example",
		Rotation: fleetkey.Rotation{Every: 90 * 24 * time.Hour},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, signer.Close()) }()
	routes, err := routes(signer)
	if err != nil {
		return err
	}
	token, err := signer.Issue(ctx, fleetkey.Claims{Subject: "alice", ClientID: "web"})
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "curl -H 'Authorization: Bearer %s' http://%s/hello\n", token, l.Addr())
	fmt.Fprintf(out, "curl http://%s/metrics\n", l.Addr())
	server := &http.Server{Handler: routes, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// routes is what the server serves. In your server /metrics belongs on an
// address that only Prometheus can reach.
func routes(signer *fleetkey.Signer) (http.Handler, error) {
	metrics, err := metrics(signer)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.Handle("GET /hello", signer.Require()(http.HandlerFunc(hello)))
	return mux, nil
}

// metrics connects a signer with Prometheus.
func metrics(signer *fleetkey.Signer) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return nil, err
	}
	if _, err := otelfleetkey.Register(metric.NewMeterProvider(metric.WithReader(exporter)), signer); err != nil {
		return nil, err
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), nil
}

func hello(w http.ResponseWriter, r *http.Request) {
	token, _ := fleetkey.FromContext(r.Context())
	fmt.Fprintf(w, "hello, %s\n", token.Subject())
}
