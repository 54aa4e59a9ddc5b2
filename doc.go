// Package fleetkey lets every instance of a load-balanced OpenID server sign and
// verify access tokens with one shared key.
//
// An OpenID server signs its access tokens. If each instance behind a load balancer has
// its own key, a token issued by one is rejected by the next. fleetkey keeps the key in
// one place that all instances can reach, creates it at the first start, and can replace
// it without losing a token:
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
// A [KeyStore] is a compare-and-swap cell of bytes: [FileStore], [AWSStore], or
// yours, checked by fleetkeytest.TestKeyStore. [OpenStore] chooses by
// an appsettings.json.
//
// What it holds is a PEM bundle and nothing else: for every key its PKCS#8
// private key and a self-signed certificate, whose NotBefore is when the key
// begins to sign; then the keys that have retired, and those that were revoked, which
// are never trusted again. A key's id (kid) is its RFC 7638 thumbprint.
//
// A [Signer] keeps what it loaded last in memory and reads the store again every
// Config.RefreshEvery, and when a token names a key that it does not know.
// [Signer.Issue] and [Signer.Verify] neither lock nor wait for the store. A [Verifier] is
// the half of it that cannot sign.
//
// # Services that only verify
//
// [NewVerifier] makes a [Verifier] with the keys that an issuer publishes, for services
// that hold no private key:
//
//	verifier, err := fleetkey.NewVerifier(context.Background(), fleetkey.VerifierConfig{
//		Issuer:   "https://id.example.com",
//		Audience: []string{"https://orders.example.com"}, // this service
//	})
//	// ...
//	mux.Handle("GET /orders", verifier.Require("orders.read")(http.HandlerFunc(orders)))
//
// VerifierConfig.Legacy takes issuers that do not follow RFC 9068, such as Keycloak, Entra
// ID and Cognito. An outage of the issuer leaves the last good keys in use.
//
// # Tokens
//
// [Signer.Issue] makes JWT access tokens as in RFC 9068. [Signer.Verify] follows
// RFC 8725: the algorithm comes from the key and never from the token, headers
// that name keys are refused, JSON is read strictly, and an error comes without
// a token. [Signer.Sign] signs ID tokens and others; [Signer.Keyfunc],
// [Signer.SigningKey] and [Signer.PublicKeys] serve code that does its own.
//
// # Rotation
//
// With Config.Rotation any instance that finds a rotation due announces a new
// key, which every instance and client knows before it signs; replaced keys are
// trusted until their last token has ended. [NewSigner] refuses a policy that
// could get a valid token rejected. [Signer.Rotate], [Signer.Revoke] and
// [Signer.RevokeAll] do it by hand. Config.Former keeps another system's tokens valid, and
// Config.Adopt those of an instance that had its own keys.
//
// # Tests
//
// Package fleetkeytest has a signer with fixed keys for unit tests, an issuer for
// services that verify, an in-memory store that fails on demand, and the conformance suite
// for stores. All time comes from package time, so that testing/synctest works.
package fleetkey
