// Package fleetkey lets every instance of a load-balanced OpenID server sign and
// verify access tokens with one shared key.
//
// An OpenID server signs its access tokens. If each instance behind a load balancer has its
// own key, a token issued by one is rejected by the next. fleetkey keeps the key in a store
// that all instances share, creates it on the first start, and can replace it without
// invalidating a token:
//
//	store := fleetkey.NewFileStore("/var/lib/openid-server/keys.pem")
//	signer, err := fleetkey.NewSigner(ctx, store, fleetkey.Config{
//		Issuer:   "https://id.example.com",
//		Rotation: fleetkey.Rotation{Every: 90 * 24 * time.Hour},
//	})
//	// ...
//	token, err := signer.Issue(ctx, fleetkey.Claims{Subject: "alice", ClientID: "web"})
//
// # How it fits together
//
// Data flows one way:
//
//	KeyStore (bytes, version) -> key set -> Signer (Issue, Verify) -> HTTP (JWKS, Require)
//
// A [KeyStore] holds one value and replaces it by compare-and-swap. Use [FileStore],
// [AWSStore], or your own store, tested with fleetkeytest.TestKeyStore. [OpenStore] opens
// the store named in an appsettings.json.
//
// The value is a PEM bundle. It holds a PKCS#8 private key and a self-signed certificate
// for each key; the certificate's NotBefore is when the key begins to sign. Retired keys
// and revoked keys follow; a revoked key is never trusted again. A key's ID (kid) is its
// RFC 7638 thumbprint.
//
// A [Signer] keeps the key set in memory. It reloads the store every Config.RefreshEvery
// and when a token names an unknown key. [Signer.Issue] never waits for the store, and
// [Signer.Verify] waits only for an unknown key. A [Verifier] can only verify.
//
// # Services that only verify
//
// [NewVerifier] returns a [Verifier] that uses the keys an issuer publishes, for services
// that hold no private key:
//
//	verifier, err := fleetkey.NewVerifier(context.Background(), fleetkey.VerifierConfig{
//		Issuer:   "https://id.example.com",
//		Audience: []string{"https://orders.example.com"}, // this service
//	})
//	// ...
//	mux.Handle("GET /orders", verifier.Require("orders.read")(http.HandlerFunc(orders)))
//
// Set VerifierConfig.Legacy for issuers that do not follow RFC 9068, such as Keycloak,
// Entra ID and Cognito. During an outage of the issuer, the last good keys stay in use.
//
// # Tokens
//
// [Signer.Issue] issues JWT access tokens as defined by RFC 9068. [Signer.Verify] follows
// RFC 8725: the algorithm comes from the key and never from the token, headers that name
// keys are rejected, and JSON is parsed strictly. [Signer.Sign] signs ID tokens and other
// JWTs. [Signer.Keyfunc], [Signer.SigningKey] and [Signer.PublicKeys] serve other JWT
// libraries.
//
// # Rotation
//
// With Config.Rotation, any instance that finds a rotation due announces a new key. All
// instances and clients know the key before it signs, and a replaced key stays trusted
// until its last token expires. [NewSigner] rejects a policy under which a valid token
// could be refused. [Signer.Rotate], [Signer.Revoke] and [Signer.RevokeAll] change keys on
// demand. Config.Former keeps another system's tokens valid, and Config.Adopt those of an
// instance that had its own keys.
//
// # Tests
//
// Package fleetkeytest provides a signer with fixed keys for unit tests, an issuer for
// services that verify, an in-memory store that fails on demand, and a conformance suite
// for stores. All times come from package time, so tests can use testing/synctest.
package fleetkey
