// Command webapp shows fleetkey in a plain net/http app: a store, a signer and a protected
// handler. Start it twice, with different values of -addr: each instance accepts the other's
// tokens.
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

	"github.com/fleetkey/fleetkey"
)

func main() {
	dir, err := os.UserConfigDir()
	if err != nil {
		log.Fatal(err)
	}
	keys := flag.String("keys", filepath.Join(dir, "fleetkey-webapp", "keys.pem"), "key `file`, the same for all instances")
	addr := flag.String("addr", "127.0.0.1:8081", "`host:port` to serve at")
	flag.Parse()
	ctx := context.Background()

	store := fleetkey.NewFileStore(*keys)                                                            // 1: where the key is
	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{Issuer: "https://webapp.example"}) // 2: what signs and verifies with it
	if err != nil {
		log.Fatal(err)
	}
	token, err := signer.Issue(ctx, fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: "greet"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("curl -H 'Authorization: Bearer %s' http://%s/hello\n", token, *addr)
	server := &http.Server{Addr: *addr, Handler: routes(signer), ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

func routes(signer *fleetkey.Signer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /hello", signer.Require("greet")(http.HandlerFunc(hello))) // 3: who gets in
	return mux
}

func hello(w http.ResponseWriter, r *http.Request) {
	token, _ := fleetkey.FromContext(r.Context())
	_, _ = fmt.Fprintf(w, "hello, %s\n", token.Subject())
}
