// Command beanstalk is an OpenID token server for AWS Elastic Beanstalk, or any other set of
// EC2 instances behind a load balancer. The instances share one signing key in AWS Secrets
// Manager. Each gets its region and credentials from the EC2 instance, so neither is
// configured.
//
// Command beanstalk has no flags. Elastic Beanstalk provides the settings as environment
// properties, see readEnvironment. The name of the secret is in appsettings.json or in the
// property OpenIDServerSigningSettings__AwsSecretManager__SecretName.
//
// README.md describes how to deploy it. The handlers are in server.go.
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

// run serves until ctx ends, and then lets running requests finish. It starts the signer
// first: until there is a key, the port is closed, so the load balancer sends no requests.
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
		// Only nginx connects here. Elastic Beanstalk runs it on the same instance.
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

// An environment holds the environment properties.
type environment struct {
	port       string
	config     fleetkey.Config
	clientID   string
	secretHash [sha256.Size]byte
}

// readEnvironment reads the properties: PORT, which Elastic Beanstalk sets; ISSUER, the load
// balancer's URL as clients use it; CLIENT_ID and CLIENT_SECRET_SHA256, the only client and
// the SHA-256 of its secret (the console shows properties to many people); ROTATE_EVERY, such
// as 2160h, which turns rotation on; and ADOPT_FILE, the file of the key that this instance
// used before it joined the fleet.
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
