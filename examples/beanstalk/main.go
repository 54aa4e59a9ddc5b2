// Command beanstalk is an OpenID token server for AWS Elastic Beanstalk, or any
// other set of EC2 instances behind a load balancer. The instances share one
// signing key in AWS Secrets Manager; each takes its region and its credentials
// from the instance that it runs on, so nothing of that is configured.
//
// It has no flags. Elastic Beanstalk hands everything over as environment
// properties, see readEnvironment. Where the key is stands in appsettings.json or in
// the property OpenIDServerSigningSettings__AwsSecretManager__SecretName.
//
// README.md describes how to deploy it. What it serves is in server.go.
package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/fleetkey/fleetkey"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		slog.Error("the server ends", "err", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and then lets requests under way finish. The signer comes
// first: while there is no key, the port is closed, and the load balancer sends nobody here.
func run(ctx context.Context) error {
	env, err := readEnvironment()
	if err != nil {
		return err
	}
	store, err := fleetkey.OpenStore(ctx, "appsettings.json")
	if err != nil {
		return err
	}
	signer, err := fleetkey.NewSigner(ctx, store, env.config)
	if err != nil {
		return err
	}
	defer func() { _ = signer.Close() }()
	server := &http.Server{
		// nginx, which Elastic Beanstalk runs on the same instance, is the only one that has to get in.
		Addr:              "127.0.0.1:" + env.port,
		Handler:           newHandler(signer, env),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute, // longer than nginx's 60 s
	}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(grace)
	})
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// An environment is what the environment properties say.
type environment struct {
	port       string
	config     fleetkey.Config
	clientID   string
	secretHash [sha256.Size]byte
}

// readEnvironment reads the properties: PORT, which Elastic Beanstalk sets;
// ISSUER, the URL that clients know the load balancer by; CLIENT_ID and
// CLIENT_SECRET_SHA256, the one client and the SHA-256 of its secret (the
// console shows properties to many people); ROTATE_EVERY, such as 2160h, which
// switches rotation on; and ADOPT_FILE, the file of the key that this instance
// had for itself before.
func readEnvironment() (environment, error) {
	env := environment{
		port:     cmp.Or(os.Getenv("PORT"), "5000"),
		clientID: cmp.Or(os.Getenv("CLIENT_ID"), "demo"),
		config:   fleetkey.Config{Issuer: os.Getenv("ISSUER"), TokenTTL: 10 * time.Minute},
	}
	hash, err := hex.DecodeString(os.Getenv("CLIENT_SECRET_SHA256"))
	if err != nil || len(hash) != sha256.Size {
		return env, errors.New("property CLIENT_SECRET_SHA256 is not the hexadecimal SHA-256 of a secret: " +
			"make one by: openssl rand -hex 32 | tr -d '\\n' | tee secret.txt | sha256sum")
	}
	copy(env.secretHash[:], hash)
	if every := os.Getenv("ROTATE_EVERY"); every != "" {
		if env.config.Rotation.Every, err = time.ParseDuration(every); err != nil {
			return env, fmt.Errorf("property ROTATE_EVERY: %w", err)
		}
	}
	if file := os.Getenv("ADOPT_FILE"); file != "" {
		env.config.Adopt = fleetkey.NewFileStore(file)
	}
	return env, nil
}
