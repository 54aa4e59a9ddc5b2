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
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// This file makes the input of the scripts: tokens, old keys, and the certificates and tokens
// of another system.

const (
	issuer    = "https://id.example.com"
	oldIssuer = "https://old.example.com"
	password  = "correct horse"
)

// fixture is a command of the scripts:
//
//	fixture token --file|--secret STORE [AGO]   print a token issued AGO, such as 2h; for AGO "id", an ID token
//	fixture history PATH                        a bundle with a key that was replaced long ago,
//	                                            and a token of that key in PATH.token
//	fixture forge TOKEN OTHER                   print TOKEN with the signature of OTHER
//	fixture ending PATH                         a bundle whose only certificate ends in a month
//	fixture fill PATH                           a bundle of the maximum size that import writes
//	fixture system NAME                         another system: its certificate in all forms, and NAME.token
//	fixture pair NAME OLD NEW                   two keys in NAME.pem, made OLD and NEW days ago for 760 days,
//	                                            with tokens in NAME.old.token, NAME.new.token
func fixture() {
	args := append(os.Args[2:], "", "")
	switch os.Args[1] {
	case "token":
		printToken(args[0], args[1], args[2])
	case "history":
		makeHistory(args[0])
	case "forge":
		a, b := must(os.ReadFile(args[0])), must(os.ReadFile(args[1]))
		fmt.Printf("%s%s", a[:bytes.LastIndexByte(a, '.')], b[bytes.LastIndexByte(b, '.'):])
	case "ending":
		signerAt(fleetkey.NewFileStore(args[0]), time.Now().AddDate(-10, 1, 0))
	case "fill":
		fill(args[0])
	case "pair":
		makePair(args[0], args[1], args[2])
	case "system":
		makeSystem(args[0])
	default:
		panic("unknown fixture " + os.Args[1])
	}
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func write(path string, data []byte) { check(os.WriteFile(path, data, 0o600)) }

func signerAt(store fleetkey.KeyStore, now time.Time) *fleetkey.Signer {
	ctx := clock.With(context.Background(), clock.Wall(func() time.Time { return now }))
	return must(fleetkey.NewSigner(ctx, store, fleetkey.Config{Issuer: issuer, Logger: slog.New(slog.DiscardHandler)}))
}

func printToken(kind, where, what string) {
	f := storeFlags{File: where}
	if kind == "--secret" {
		f = storeFlags{Secret: where}
	}
	ctx := context.Background()
	s := signerAt(must(f.open(ctx, newSecretFlags{})), time.Now())
	switch what {
	case "":
		fmt.Print(must(s.Issue(ctx, fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: "api.read"})))
	case "id":
		fmt.Print(must(s.Sign(ctx, "JWT", map[string]any{"iss": issuer, "sub": "alice", "aud": "web"})))
	default: // Issue rejects a token that has already expired
		fmt.Print(issueAt(s.SigningKey(), time.Now().Add(-must(time.ParseDuration(what)))))
	}
}

func issueAt(key fleetkey.SigningKey, at time.Time) string {
	token := jwt.NewWithClaims(jwt.GetSigningMethod(key.Algorithm), jwt.MapClaims{
		"iss": issuer, "aud": issuer, "sub": "alice", "client_id": "web", "iat": at.Unix(), "exp": at.Add(time.Hour).Unix(),
	})
	token.Header["kid"], token.Header["typ"] = key.KeyID, "at+jwt"
	return must(token.SignedString(key.Signer))
}

func makeHistory(path string) {
	store, day := fleetkey.NewFileStore(path), 24*time.Hour
	first := signerAt(store, time.Now().Add(-40*day))
	write(path+".token", []byte(must(first.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ClientID: "web"}))))
	check(signerAt(store, time.Now().Add(-20*day)).Rotate(context.Background()))
}

// selfSigned returns a key whose certificate began age days ago and lasts 760 days.
func selfSigned(name string, age int) *keyset.Key {
	begin := time.Now().AddDate(0, 0, -age)
	private, cert := certificate(name, nil, nil, begin, begin.AddDate(0, 0, 760))
	return must(keyset.NewKey(cert, private))
}

// fill revokes made-up keys until import would reject one more.
func fill(path string) {
	var full []byte
	set := keyset.New([]*keyset.Key{selfSigned("full", 1)}, nil, nil)
	for bundle, err := encode(set); err == nil; bundle, err = encode(set) {
		full, set = bundle, keyset.New(set.Keys, nil, append(set.Revoked, base64.RawURLEncoding.EncodeToString([]byte(rand.Text()+"abcdef"))))
	}
	write(path, full)
}

// makePair makes two keys, like those of an operator who has replaced a certificate.
func makePair(name string, ages ...string) {
	var keys []*keyset.Key
	for i, file := range []string{".old.token", ".new.token"} {
		k := selfSigned(name+file, must(strconv.Atoi(ages[i])))
		write(name+file, []byte(issueAt(fleetkey.SigningKey{KeyID: k.ID, Algorithm: k.Alg.Name, Signer: k.Private}, time.Now())))
		keys = append(keys, k)
	}
	write(name+".pem", must(keyset.New(keys, nil, nil).Encode()))
}

// makeSystem makes the certificate of an IdentityServer, issued by a CA, and a token signed
// with it, whose kid has the form that .NET writes.
func makeSystem(name string) {
	begin, end := time.Now().Add(-1000*time.Hour), time.Now().Add(10000*time.Hour)
	caKey, ca := certificate("authority of "+name, nil, nil, begin, end)
	key, cert := certificate(name, ca, caKey, begin, end)
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": oldIssuer, "aud": issuer, "client_id": "web", "sub": "bob",
		"exp": time.Now().Add(2 * time.Hour).Unix(), "nbf": time.Now().Unix(),
	})
	token.Header["kid"] = fmt.Sprintf("%XRS256", sha1.Sum(cert.Raw))
	token.Header["typ"] = "at+jwt"
	for ext, data := range map[string][]byte{
		".token": []byte(must(token.SignedString(key))), ".cer": cert.Raw, ".crt": []byte(inPEM("CERTIFICATE", cert.Raw)), ".ca.crt": []byte(inPEM("CERTIFICATE", ca.Raw)),
		".key": []byte(inPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key))), ".key8": []byte(inPKCS8(key)),
		".password": []byte(password + "\r\n"), ".pfx": must(pkcs12.Modern2023.Encode(key, cert, []*x509.Certificate{ca}, password)),
	} {
		write(name+ext, data)
	}
}

func certificate(name string, issuer *x509.Certificate, issuerKey *rsa.PrivateKey, begin, end time.Time) (*rsa.PrivateKey, *x509.Certificate) {
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: issuer == nil, BasicConstraintsValid: true,
		NotBefore: begin, NotAfter: end,
	}
	if issuer == nil {
		issuer, issuerKey = template, key
	}
	return key, must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey))))
}

// startIssuer returns the address of an issuer, and tokens: a valid one, one
// signed by an unknown key, and ones in the form of older systems and of Cognito.
func startIssuer(t testing.TB) (string, map[string]string) {
	i := fleetkeytest.NewIssuer(t, func(o *fleetkeytest.IssuerOptions) {
		o.Loopback, o.Config.Logger = true, slog.New(slog.DiscardHandler)
	})
	stranger := fleetkeytest.NewSigner(t, fleetkey.Config{Issuer: i.URL, Algorithm: "ES256", Logger: slog.New(slog.DiscardHandler)})
	good := fleetkey.Claims{Subject: "alice", ClientID: "web", Scope: "api.read", Audience: []string{"https://api.example.com"}}
	claims := map[string]any{"iss": i.URL, "exp": time.Now().Add(time.Hour).Unix(), "sub": "alice", "client_id": "web"}
	claims["token_use"] = "access"
	cognito := must(i.Signer.Sign(t.Context(), "JWT", claims))
	delete(claims, "token_use")
	claims["aud"], claims["scp"] = good.Audience, []string{"api.read"}
	return i.URL, map[string]string{
		"good": i.Token(good), "stranger": must(stranger.Issue(t.Context(), good)),
		"cognito": cognito, "legacy": must(i.Signer.Sign(t.Context(), "JWT", claims)),
	}
}

// wrongClock returns an address at which server's clock is ten minutes ahead.
func wrongClock(t testing.TB, server *awsfake.Server) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat))
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}
