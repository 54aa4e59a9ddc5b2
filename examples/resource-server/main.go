// Command resource-server is an API that verifies the tokens of an OpenID server, such as
// examples/openid-server, without a private key. It continues to work when that server is stopped.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/fleetkey/fleetkey"
)

func main() {
	issuer := flag.String("issuer", "http://127.0.0.1:8080", "`URL` of the OpenID server")
	audience := flag.String("audience", "", "`name` of this API in tokens (default: the issuer, as in examples/openid-server)")
	addr := flag.String("addr", "127.0.0.1:8083", "`host:port` to serve at")
	flag.Parse()

	verifier, err := fleetkey.NewVerifier(context.Background(), fleetkey.VerifierConfig{
		Issuer:   *issuer,
		Audience: []string{cmp.Or(*audience, *issuer)},
	})
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("http://%s/hello takes the tokens of %s", *addr, *issuer)
	server := &http.Server{Addr: *addr, Handler: routes(verifier), ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

// routes returns the API's handler. In your API, serve /healthz on an address that only
// operators and the load balancer can reach.
func routes(v *fleetkey.Verifier) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /hello", v.Require("api.read")(http.HandlerFunc(hello)))
	mux.Handle("GET /healthz", v.Health())
	return mux
}

func hello(w http.ResponseWriter, r *http.Request) {
	token, _ := fleetkey.FromContext(r.Context())
	_, _ = fmt.Fprintf(w, "hello, %s\n", token.Subject())
}
