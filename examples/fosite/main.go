package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/fleetkey/fleetkey"
)

func main() {
	if err := demonstrate(context.Background(), os.Stdout); err != nil {
		log.Fatal("fosite: ", err)
	}
}

// demonstrate gets a token from one instance and shows it to the other.
func demonstrate(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "fosite-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var f fleet
	for i := range f {
		store := fleetkey.NewFileStore(filepath.Join(dir, "keys.pem"))
		if f[i], err = newServer(ctx, store); err != nil {
			return err
		}
		defer f[i].signer.Close()
	}
	ctx = f.reach(ctx)
	token, err := issue(ctx, "instance-1")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Instance 1 issues a token, signed with key %s.\n", f[0].signer.SigningKey().KeyID)
	if err := check(ctx, "instance-2", token); err != nil {
		return err
	}
	fmt.Fprintln(out, "Instance 2 accepts it.")
	return nil
}

// A fleet is two servers that have nothing in common but the key store and their
// configuration. Clients reach them without a network, as the hosts instance-1 and
// instance-2.
type fleet [2]*server

// reach returns a context for the clients of golang.org/x/oauth2.
func (f *fleet) reach(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: f})
}

// RoundTrip lets the instance answer that the request's host names.
func (f *fleet) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.URL.Host == "instance-1" {
		f[0].ServeHTTP(w, r)
	} else {
		f[1].ServeHTTP(w, r)
	}
	return w.Result(), nil
}

// issue gets a token from one instance by the client credentials grant, as a
// program does with golang.org/x/oauth2.
func issue(ctx context.Context, host string) (*oauth2.Token, error) {
	config := clientcredentials.Config{ClientID: clientID, ClientSecret: clientSecret, TokenURL: "http://" + host + "/token", Scopes: []string{scope}}
	return config.Token(ctx)
}

// check shows a token to one instance: to its API, which fleetkey protects, and
// to fosite's introspection.
func check(ctx context.Context, host string, token *oauth2.Token) error {
	resp, err := oauth2.NewClient(ctx, oauth2.StaticTokenSource(token)).Get("http://" + host + "/hello")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API: %s", resp.Status)
	}
	active, err := introspect(ctx, host, token)
	if err != nil {
		return err
	}
	if active["active"] != true || active["sub"] != clientID || active["scope"] != scope {
		return fmt.Errorf("introspection: %v", active)
	}
	return nil
}

func introspect(ctx context.Context, host string, token *oauth2.Token) (answer map[string]any, err error) {
	form := strings.NewReader(url.Values{"token": {token.AccessToken}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/introspect", form)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(clientID, clientSecret)
	resp, err := oauth2.NewClient(ctx, nil).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return answer, json.NewDecoder(resp.Body).Decode(&answer)
}
