// Command prometheus is a server that signs with fleetkey and exports its signer's metrics at
// /metrics. Next to it are a Grafana dashboard of these metrics, dashboard.json, and alert
// rules, alerts.yaml.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/otelfleetkey"
)

func main() {
	dir, err := os.UserConfigDir()
	if err != nil {
		log.Fatal(err)
	}
	keys := flag.String("keys", filepath.Join(dir, "fleetkey-prometheus", "keys.pem"), "key `file`")
	addr := flag.String("addr", "127.0.0.1:9464", "`host:port` to serve at")
	flag.Parse()
	ctx := context.Background()
	signer, err := fleetkey.NewSigner(ctx, fleetkey.NewFileStore(*keys), fleetkey.Config{
		Issuer:   "https://prometheus.example",
		Rotation: fleetkey.Rotation{Every: 90 * 24 * time.Hour},
	})
	if err != nil {
		log.Fatal(err)
	}
	routes, err := routes(signer)
	if err != nil {
		log.Fatal(err)
	}
	token, err := signer.Issue(ctx, fleetkey.Claims{Subject: "alice", ClientID: "web"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("curl -H 'Authorization: Bearer %s' http://%s/hello\n", token, *addr)
	fmt.Printf("curl http://%s/metrics\n", *addr)
	server := &http.Server{Addr: *addr, Handler: routes, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

// routes returns the server's handler. In your server, serve /metrics on an address that only
// Prometheus can reach.
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

// metrics exports a signer's metrics to Prometheus.
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
