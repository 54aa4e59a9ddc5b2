package main

import (
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
)

// A storeKind is a place for keys. The first time a name is used, open returns an
// empty store.
type storeKind struct {
	name string
	open func(name string) fleetkey.KeyStore
}

// measureStarts times NewSigner until it can issue, including the store's own start.
func measureStarts(p plan, out io.Writer) {
	dir := must(os.MkdirTemp("", "fleetkey-bench"))
	defer os.RemoveAll(dir)
	aws := httptest.NewServer(awsfake.New())
	defer aws.Close()
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": aws.URL, "AWS_REGION": awsfake.Region, "AWS_ACCESS_KEY_ID": "AKIDFAKE",
		"AWS_SECRET_ACCESS_KEY": "fake", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "",
	} {
		check(os.Setenv(name, value))
	}
	cells := map[string]*fleetkeytest.Store{}
	fmt.Fprintf(out, `
## Time to start

From opening the store to the first token, median of %d. The first start makes the key; making an RSA key takes
as long as chance will have it.

| store | first, ES256 | later, ES256 | first, RS256 | later, RS256 |
|---|---|---|---|---|
`, p.starts)
	for _, kind := range []storeKind{
		{"in memory", func(name string) fleetkey.KeyStore {
			if cells[name] == nil {
				cells[name] = fleetkeytest.NewStore()
			}
			return cells[name].Open()
		}},
		{"file", func(name string) fleetkey.KeyStore {
			return fleetkey.NewFileStore(filepath.Join(dir, name, "keys.pem"))
		}},
		{"Secrets Manager, simulated on the loopback interface, without TLS", func(name string) fleetkey.KeyStore {
			return must(fleetkey.NewAWSStore(context.Background(), "bench/"+name))
		}},
	} {
		fmt.Fprintf(out, "| %s", kind.name)
		for _, algorithm := range []string{"ES256", "RS256"} {
			var first, later []float64
			for i := range p.starts {
				name := algorithm + strconv.Itoa(i)
				first = append(first, kind.start(algorithm, name))
				later = append(later, kind.start(algorithm, name))
			}
			fmt.Fprintf(out, " | %s ms | %s ms", figure(median(first)), figure(median(later)))
		}
		fmt.Fprintln(out, " |")
	}
}

// start returns the milliseconds that one start takes.
func (k storeKind) start(algorithm, name string) float64 {
	ctx := context.Background()
	began := time.Now()
	signer := must(fleetkey.NewSigner(ctx, k.open(name), config(algorithm)))
	must(signer.Issue(ctx, claims()))
	took := time.Since(began)
	_ = signer.Close()
	return float64(took) / float64(time.Millisecond)
}
