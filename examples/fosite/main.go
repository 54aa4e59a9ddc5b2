package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
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

// demonstrate gets a token from one instance and shows it to the other. The two have
// nothing in common but the key store and their configuration.
func demonstrate(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "fosite-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var instances [2]*server
	for i := range instances {
		store := fleetkey.NewFileStore(filepath.Join(dir, "keys.pem"))
		if instances[i], err = newServer(ctx, store); err != nil {
			return err
		}
		defer func() { _ = instances[i].signer.Close() }()
	}
	token, err := issue(ctx, instances[0])
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Instance 1 issues a token, signed with key %s.\n", instances[0].signer.SigningKey().KeyID)
	if err := check(ctx, instances[1], token); err != nil {
		return err
	}
	fmt.Fprintln(out, "Instance 2 accepts it.")
	return nil
}

// issue gets a token from one instance by the client credentials grant, as a
// program does with golang.org/x/oauth2.
func issue(ctx context.Context, s *server) (*oauth2.Token, error) {
	config := clientcredentials.Config{ClientID: clientID, ClientSecret: clientSecret, TokenURL: issuer + "/token", Scopes: []string{scope}}
	return config.Token(s.reach(ctx))
}

// check shows a token to one instance: to its API, which fleetkey protects, and
// to fosite's introspection.
func check(ctx context.Context, s *server, token *oauth2.Token) error {
	resp, err := oauth2.NewClient(s.reach(ctx), oauth2.StaticTokenSource(token)).Get(issuer + "/hello")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the API: %s", resp.Status)
	}
	active, err := introspect(ctx, s, token)
	if err != nil {
		return err
	}
	if active["active"] != true || active["sub"] != clientID || active["scope"] != scope {
		return fmt.Errorf("introspection: %v", active)
	}
	return nil
}

func introspect(ctx context.Context, s *server, token *oauth2.Token) (answer map[string]any, err error) {
	form := strings.NewReader(url.Values{"token": {token.AccessToken}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, issuer+"/introspect", form)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(clientID, clientSecret)
	resp, err := oauth2.NewClient(s.reach(ctx), nil).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return answer, json.NewDecoder(resp.Body).Decode(&answer)
}
