package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/fleetkey/fleetkey"
)

func main() {
	if err := demonstrate(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "fosite:", err)
		os.Exit(1)
	}
}

// demonstrate gets tokens from one instance and shows them to the other, before
// and after a rotation.
func demonstrate(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "fosite-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	store := func() fleetkey.KeyStore { return fleetkey.NewFileStore(filepath.Join(dir, "keys.pem")) }
	f, err := startFleet(ctx, store(), store())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()

	old, err := f.demonstrateToken(ctx, out, 0, 1)
	if err != nil {
		return err
	}
	if err := f.rotate(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "The key has been replaced.")
	if _, err := f.demonstrateToken(ctx, out, 1, 0); err != nil {
		return err
	}
	if err := f.check(ctx, 1, old); err != nil {
		return err
	}
	fmt.Fprintln(out, "Instance 2 accepts the token from before, too.")
	return nil
}

func (f *fleet) demonstrateToken(ctx context.Context, out io.Writer, issuing, checking int) (*oauth2.Token, error) {
	token, err := f.token(ctx, issuing)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "Instance %d issues a token, signed with key %s.\n", issuing+1, f.instances[issuing].signer.SigningKey().KeyID)
	if err := f.check(ctx, checking, token); err != nil {
		return nil, err
	}
	fmt.Fprintf(out, "Instance %d accepts it.\n", checking+1)
	return token, nil
}

// A fleet is some instances, and the secret of their client.
type fleet struct {
	instances []*instance
	secret    string
}

// startFleet starts an instance on each store.
func startFleet(ctx context.Context, stores ...fleetkey.KeyStore) (*fleet, error) {
	f := &fleet{secret: rand.Text()}
	for _, store := range stores {
		i, err := startInstance(ctx, store, f.secret)
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		f.instances = append(f.instances, i)
	}
	return f, nil
}

func (f *fleet) close() error {
	var errs []error
	for _, i := range f.instances {
		errs = append(errs, i.close())
	}
	return errors.Join(errs...)
}

// rotate announces a new key at one instance, and returns when it signs at all.
func (f *fleet) rotate(ctx context.Context) error {
	before := f.instances[0].signer.SigningKey().KeyID
	if err := f.instances[0].signer.Rotate(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for _, i := range f.instances {
		for i.signer.SigningKey().KeyID == before {
			select {
			case <-ctx.Done():
				return fmt.Errorf("the new key does not sign: %w", ctx.Err())
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// token gets a token from one instance by the client credentials grant, as a
// program does with golang.org/x/oauth2.
func (f *fleet) token(ctx context.Context, instance int) (*oauth2.Token, error) {
	config := clientcredentials.Config{
		ClientID: clientID, ClientSecret: f.secret, TokenURL: f.instances[instance].url + "/token", Scopes: []string{scope},
	}
	return config.Token(ctx)
}

// check shows a token to one instance: to its API, which fleetkey protects, and
// to fosite's introspection.
func (f *fleet) check(ctx context.Context, instance int, token *oauth2.Token) error {
	api, err := f.call(ctx, instance, token)
	if err != nil {
		return fmt.Errorf("the API: %w", err)
	}
	if api["hello"] != clientID {
		return fmt.Errorf("the API greets %v", api["hello"])
	}
	active, err := f.introspect(ctx, instance, token)
	if err != nil {
		return fmt.Errorf("introspection: %w", err)
	}
	if active["active"] != true || active["sub"] != clientID || active["scope"] != scope {
		return fmt.Errorf("introspection: %v", active)
	}
	return nil
}

func (f *fleet) call(ctx context.Context, instance int, token *oauth2.Token) (map[string]any, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.instances[instance].url+"/hello", nil)
	if err != nil {
		return nil, err
	}
	return do(oauth2.NewClient(ctx, oauth2.StaticTokenSource(token)), req)
}

func (f *fleet) introspect(ctx context.Context, instance int, token *oauth2.Token) (map[string]any, error) {
	form := strings.NewReader(url.Values{"token": {token.AccessToken}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.instances[instance].url+"/introspect", form)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(clientID, f.secret)
	return do(http.DefaultClient, req)
}

func do(client *http.Client, req *http.Request) (map[string]any, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		return nil, fmt.Errorf("status %d: %s", resp.StatusCode, body)
	}
	var answer map[string]any
	return answer, json.NewDecoder(resp.Body).Decode(&answer)
}
