package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/golang-jwt/jwt/v5"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// This file makes what the scripts need: tokens, keys of the past, and the
// certificates and tokens of another system.

const (
	issuer    = "https://id.example.com"
	oldIssuer = "https://old.example.com"
	password  = "correct horse"
)

// fixture is a command of the scripts:
//
//	fixture token --file|--secret STORE [AGO]   print a token, issued so long ago, or with "id" an ID token
//	fixture history PATH                        a bundle with a key that was replaced long ago,
//	                                            and a token of that key in PATH.token
//	fixture forge TOKEN OTHER                   print the one token with the signature of the other
//	fixture settings --file|--secret STORE      print an appsettings.json
//	fixture hold LOCK READY                     hold a lock until killed; READY appears when it is held
//	fixture await FILE                          wait for a file
//	fixture ending PATH                         a bundle whose only certificate ends in a month
//	fixture fill PATH                           a bundle that is as full as import fills it
//	fixture system NAME                         another system: its certificate in all forms, and NAME.token
//	fixture pair NAME OLD NEW                   two keys in NAME.pem, made so many days ago, each for 760 days, and
//	                                            NAME.old.token, NAME.new.token
func fixture() {
	var err error
	switch args := os.Args[2:]; os.Args[1] {
	case "token":
		err = printToken(args[0], args[1], append(args, "")[2])
	case "history":
		err = makeHistory(args[0])
	case "forge":
		err = forge(args[0], args[1])
	case "hold":
		err = hold(args[0], args[1])
	case "await":
		err = await(args[0])
	case "ending":
		_, err = signerAt(fleetkey.NewFileStore(args[0]), time.Now().AddDate(-10, 1, 0))
	case "settings":
		err = printSettings(args[0], args[1])
	case "system":
		err = makeSystem(args[0])
	case "fill":
		err = fill(args[0])
	case "pair":
		err = makePair(args[0], args[1:])
	default:
		err = fmt.Errorf("unknown fixture %s", os.Args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func signerAt(store fleetkey.KeyStore, now time.Time) (*fleetkey.Signer, error) {
	ctx := clock.With(context.Background(), clock.Wall(func() time.Time { return now }))
	return fleetkey.NewSigner(ctx, store, fleetkey.Config{
		Issuer: issuer, Logger: slog.New(slog.DiscardHandler),
	})
}

func printToken(kind, where, what string) error {
	f := storeFlags{File: where}
	if kind == "--secret" {
		f = storeFlags{Secret: where}
	}
	store, err := f.open(context.Background(), newSecretFlags{})
	if err != nil {
		return err
	}
	s, err := signerAt(store, time.Now())
	if err != nil {
		return err
	}
	var text string
	switch what {
	case "":
		text, err = s.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: "api.read"})
	case "id":
		text, err = s.Sign(context.Background(), "JWT", map[string]any{"iss": issuer, "sub": "alice", "aud": "web"})
	default: // Issue does not lie
		var ago time.Duration
		if ago, err = time.ParseDuration(what); err == nil {
			text, err = issueAt(s.SigningKey(), time.Now().Add(-ago))
		}
	}
	fmt.Print(text)
	return err
}

func issueAt(key fleetkey.SigningKey, at time.Time) (string, error) {
	token := jwt.NewWithClaims(jwt.GetSigningMethod(key.Algorithm), jwt.MapClaims{
		"iss": issuer, "aud": issuer, "sub": "alice", "client_id": "web", "iat": at.Unix(), "exp": at.Add(time.Hour).Unix(),
	})
	token.Header["kid"], token.Header["typ"] = key.KeyID, "at+jwt"
	return token.SignedString(key.Signer)
}

func hold(lock, ready string) error {
	if err := flock.New(lock).Lock(); err != nil {
		return err
	}
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1) // select {} would count as a deadlock without cgo
	signal.Notify(stop, os.Interrupt)
	<-stop
	return nil
}

func await(file string) error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s did not appear", file)
}

func forge(token, other string) error {
	a, err := os.ReadFile(token)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(other)
	fmt.Printf("%s%s", a[:bytes.LastIndexByte(a, '.')], b[bytes.LastIndexByte(b, '.'):])
	return err
}

func printSettings(kind, where string) error {
	section := map[string]any{"File": map[string]string{"Path": where}}
	if kind == "--secret" {
		section = map[string]any{"AwsSecretManager": map[string]string{"SecretName": where}}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"OpenIDServerSigningSettings": section})
}

func makeHistory(path string) error {
	store, day := fleetkey.NewFileStore(path), 24*time.Hour
	first, err := signerAt(store, time.Now().Add(-40*day))
	if err != nil {
		return err
	}
	token, err := first.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ClientID: "web"})
	if err != nil {
		return err
	}
	second, err := signerAt(store, time.Now().Add(-20*day))
	if err != nil {
		return err
	}
	if err := second.Rotate(context.Background()); err != nil {
		return err
	}
	return os.WriteFile(path+".token", []byte(token), 0o600)
}

// selfSigned returns a key whose certificate was made so many days ago, for 760 days.
func selfSigned(name string, age int) (*keyset.Key, error) {
	begin := time.Now().AddDate(0, 0, -age)
	private, cert, err := certificate(name, nil, nil, begin, begin.AddDate(0, 0, 760))
	if err != nil {
		return nil, err
	}
	return keyset.NewKey(cert, private)
}

// fill revokes keys that nobody has until import would refuse one more.
func fill(path string) error {
	k, err := selfSigned("full", 1)
	if err != nil {
		return err
	}
	var full []byte
	set := keyset.New([]*keyset.Key{k}, nil, nil)
	for bundle, err := encode(set); err == nil; bundle, err = encode(set) {
		full, set = bundle, set.Without([]string{base64.RawURLEncoding.EncodeToString([]byte(rand.Text() + "abcdef"))})
	}
	return os.WriteFile(path, full, 0o600)
}

// makePair makes two keys, as an operator has them who has replaced a certificate.
func makePair(name string, ages []string) error {
	var keys []*keyset.Key
	for i, file := range []string{".old.token", ".new.token"} {
		age, err := strconv.Atoi(ages[i])
		if err != nil {
			return err
		}
		k, err := selfSigned(name+file, age)
		if err != nil {
			return err
		}
		token, err := issueAt(fleetkey.SigningKey{KeyID: k.ID, Algorithm: k.Alg.Name, Signer: k.Private}, time.Now())
		if err != nil {
			return err
		}
		if err := os.WriteFile(name+file, []byte(token), 0o600); err != nil {
			return err
		}
		keys = append(keys, k)
	}
	both, err := keyset.New(keys, nil, nil).Encode()
	if err != nil {
		return err
	}
	return os.WriteFile(name+".pem", both, 0o600)
}

// makeSystem makes the certificate of an IdentityServer, issued by an authority,
// and a token signed with it, whose kid is as .NET writes it.
func makeSystem(name string) error {
	begin, end := time.Now().Add(-1000*time.Hour), time.Now().Add(10000*time.Hour)
	caKey, ca, err := certificate("authority of "+name, nil, nil, begin, end)
	if err != nil {
		return err
	}
	key, cert, err := certificate(name, ca, caKey, begin, end)
	if err != nil {
		return err
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": oldIssuer, "aud": issuer, "client_id": "web", "sub": "bob",
		"exp": time.Now().Add(2 * time.Hour).Unix(), "nbf": time.Now().Unix(),
	})
	token.Header["kid"] = fmt.Sprintf("%XRS256", sha1.Sum(cert.Raw))
	token.Header["typ"] = "at+jwt"
	signed, err := token.SignedString(key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	block := func(typ string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}) }
	files := map[string][]byte{
		".token": []byte(signed), ".cer": cert.Raw, ".crt": block("CERTIFICATE", cert.Raw), ".ca.crt": block("CERTIFICATE", ca.Raw),
		".key": block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)), ".key8": block("PRIVATE KEY", pkcs8),
		".password": []byte(password + "\r\n"),
	}
	for ext, encoder := range map[string]*pkcs12.Encoder{".pfx": pkcs12.Modern2023, ".legacy.pfx": pkcs12.LegacyRC2} {
		if files[ext], err = encoder.Encode(key, cert, []*x509.Certificate{ca}, password); err != nil {
			return err
		}
	}
	if files[".open.pfx"], err = pkcs12.Modern2023.Encode(key, cert, nil, ""); err != nil {
		return err
	}
	// Who writes a PFX chooses the order of the certificates.
	if files[".reversed.pfx"], err = pkcs12.Modern2023.Encode(key, ca, []*x509.Certificate{cert}, password); err != nil {
		return err
	}
	for ext, data := range files {
		if err := os.WriteFile(name+ext, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func certificate(name string, issuer *x509.Certificate, issuerKey *rsa.PrivateKey, begin, end time.Time) (*rsa.PrivateKey, *x509.Certificate, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: issuer == nil, BasicConstraintsValid: true,
		NotBefore: begin, NotAfter: end,
	}
	if issuer == nil {
		issuer, issuerKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return key, cert, err
}

// readPolicy takes actions and resources out of what fleetkey policy prints.
func readPolicy(text string, p *awsfake.Policy) error {
	var document iamPolicy
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		return err
	}
	for _, s := range document.Statement {
		p.Actions = append(p.Actions, s.Action...)
		many, ok := s.Resource.([]any)
		if !ok {
			many = []any{s.Resource}
		}
		for _, one := range many {
			p.Resources = append(p.Resources, one.(string))
		}
	}
	return nil
}

// wrongClock returns the address of a proxy to an AWS whose clock is ten minutes
// ahead.
func wrongClock(t testing.TB, server *awsfake.Server) string {
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Date", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat))
		return nil
	}
	s := httptest.NewServer(proxy)
	t.Cleanup(s.Close)
	return s.URL
}
