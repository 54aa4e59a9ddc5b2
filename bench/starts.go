package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// A storeKind is one place for keys; open gives a store that is empty the first
// time that a name is used.
type storeKind struct {
	name string
	open func(ctx context.Context, name string) (fleetkey.KeyStore, error)
}

// measureStarts times NewSigner until it can issue, the store's own start
// included.
func measureStarts(p plan, out *page) error {
	dir, err := os.MkdirTemp("", "fleetkey-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	aws := httptest.NewServer(awsfake.New())
	defer aws.Close()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": aws.URL, "AWS_REGION": awsfake.Region, "AWS_ACCESS_KEY_ID": "AKIDFAKE",
		"AWS_SECRET_ACCESS_KEY": "fake", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "",
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	cells := map[string]*fleetkeytest.Store{}
	kinds := []storeKind{
		{"in memory", func(_ context.Context, name string) (fleetkey.KeyStore, error) {
			if cells[name] == nil {
				cells[name] = fleetkeytest.NewStore()
			}
			return cells[name].Open(), nil
		}},
		{"file", func(_ context.Context, name string) (fleetkey.KeyStore, error) {
			return fleetkey.NewFileStore(filepath.Join(dir, name, "keys.pem")), nil
		}},
		{"Secrets Manager, simulated on the loopback interface, without TLS", func(ctx context.Context, name string) (fleetkey.KeyStore, error) {
			return fleetkey.NewAWSStore(ctx, "bench/"+name)
		}},
	}
	fmt.Fprintf(out, "\n## Time to start\n\nFrom opening the store to the first token, median of %d. The first start makes the key; making an RSA key takes\n"+
		"as long as chance will have it.\n\n| store | first, ES256 | later, ES256 | first, RS256 | later, RS256 |\n|---|---|---|---|---|\n", p.starts)
	for _, kind := range kinds {
		fmt.Fprintf(out, "| %s", kind.name)
		for _, algorithm := range []string{"ES256", "RS256"} {
			first, later, err := kind.times(p, algorithm)
			if err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			fmt.Fprintf(out, " | %s ms | %s ms", figure(first), figure(later))
		}
		fmt.Fprintln(out, " |")
	}
	return nil
}

// times returns the milliseconds that a first start and a later one take.
func (k storeKind) times(p plan, algorithm string) (first, later float64, err error) {
	var firsts, laters []float64
	for i := range p.starts {
		name := algorithm + strconv.Itoa(i)
		for _, into := range []*[]float64{&firsts, &laters} {
			took, err := k.start(algorithm, name)
			if err != nil {
				return 0, 0, err
			}
			*into = append(*into, float64(took)/float64(time.Millisecond))
		}
	}
	return median(firsts), median(laters), nil
}

func (k storeKind) start(algorithm, name string) (time.Duration, error) {
	ctx := context.Background()
	began := time.Now()
	store, err := k.open(ctx, name)
	if err != nil {
		return 0, err
	}
	signer, err := fleetkey.NewSigner(ctx, store, config(algorithm))
	if err != nil {
		return 0, err
	}
	_, err = signer.Issue(ctx, claims())
	took := time.Since(began)
	_ = signer.Close()
	return took, err
}
