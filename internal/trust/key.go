package trust

import (
	"crypto"
	"crypto/fips140"
	"crypto/sha1" //nolint:gosec // names certificates, as RFC 7515 section 4.1.7 defines
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
)

// A Key is a trusted key and the time until which its tokens are accepted.
type Key struct {
	ID     string // reported name
	Alg    jws.Algorithm
	Public crypto.PublicKey
	Cert   *x509.Certificate // nil: a plain public key
	Until  time.Time         // zero: no end
	Header string            // encoded header of its access tokens: alg, kid and typ

	Source *keyset.Key // in the set; nil: it has no private key
	Kept   bool        // no longer in the set; see keepVanished

	Names        []string  // further kids
	Former       bool      // its tokens follow the rules from before RFC 9068
	Issuer       string    // of its tokens; empty: the usual one
	IssuedBefore time.Time // of its tokens; zero: no limit
	Hidden       bool      // not in the JWKS
	Published    bool      // read from the JWKS of an issuer
}

// Former returns a key of another system under a kid or, if kid is "", under every kid that
// such systems derive from the key and its certificate: the RFC 7638 thumbprint, and the
// certificate's thumbprints (RFC 7515 sections 4.1.7 and 4.1.8) in base64url and, as in
// .NET, in hexadecimal, to which IdentityServer appends the algorithm.
func Former(public crypto.PublicKey, alg jws.Algorithm, cert *x509.Certificate, kid string) *Key {
	k := &Key{ID: kid, Alg: alg, Public: public, Cert: cert, Former: true}
	if kid == "" {
		k.ID = jws.Thumbprint(public)
		if cert != nil {
			var digest1 [sha1.Size]byte
			// Only a name chosen by others; security does not depend on it.
			fips140.WithoutEnforcement(func() { digest1 = sha1.Sum(cert.Raw) })
			digest256 := sha256.Sum256(cert.Raw)
			upper := strings.ToUpper(hex.EncodeToString(digest1[:]))
			base64url := base64.RawURLEncoding.EncodeToString
			k.Names = []string{base64url(digest1[:]), base64url(digest256[:]), upper, upper + alg.Name, strings.ToLower(upper)}
		}
	}
	k.Header = jws.EncodeHeader(alg, k.ID, jws.AccessTokenType)
	return k
}

// Adopted returns the keys of a set that an instance used alone before it joined a fleet at
// since. Until end, they verify the tokens issued before since. They are not published,
// since each instance would publish different ones.
func Adopted(set *keyset.Set, since, until time.Time) (keys []*Key) {
	add := func(id string, alg jws.Algorithm, public crypto.PublicKey, end time.Time) {
		if until.Before(end) {
			end = until
		}
		keys = append(keys, &Key{ID: id, Alg: alg, Public: public, Until: end, IssuedBefore: since, Hidden: true,
			Header: jws.EncodeHeader(alg, id, jws.AccessTokenType)})
	}
	for _, k := range set.Keys {
		add(k.ID, k.Alg, k.Public, k.Cert.NotAfter)
	}
	for _, r := range set.Retired {
		add(r.ID, r.Alg, r.Public, r.Until)
	}
	return keys
}

// Trusted reports whether the key's tokens are accepted at a time.
func (k *Key) Trusted(at time.Time) bool { return k.Until.IsZero() || at.Before(k.Until) }

func (k *Key) names() []string { return append([]string{k.ID}, k.Names...) }

// signsFrom reports whether the key signs or will sign, if signing is the one that signs now.
func (k *Key) signsFrom(signing *keyset.Key) bool {
	return k.Source != nil && (signing == nil || !k.Source.Cert.NotBefore.Before(signing.Cert.NotBefore))
}

// jwk returns the public key under a name, with the certificate (x5c) and its SHA-256
// thumbprint (x5t#S256) if asked for: a set of many keys must stay small, since some
// clients refuse 50 KiB.
func (k *Key) jwk(name string, withCert bool) jose.JSONWebKey {
	jwk := jws.JWK(k.Public, name, k.Alg)
	if withCert {
		digest := sha256.Sum256(k.Cert.Raw)
		jwk.Certificates, jwk.CertificateThumbprintSHA256 = []*x509.Certificate{k.Cert}, digest[:]
	}
	return jwk
}

// The roles of a key, in the order of its life. The root package exports and documents
// them.
const (
	RolePublished = "published"
	RoleAnnounced = "announced"
	RoleSigning   = "signing"
	RoleRetired   = "retired"
	RoleFormer    = "former"
	RoleRevoked   = "revoked"
	RoleGone      = "gone"
)

// Role returns the role of the key at a time at which signing signs.
func (k *Key) Role(now time.Time, signing *Key) string {
	switch {
	case !k.Trusted(now):
		return RoleGone
	case k.Published:
		return RolePublished
	case k.Former, !k.IssuedBefore.IsZero():
		return RoleFormer
	case k == signing:
		return RoleSigning
	case k.Source != nil && k.Cert.NotBefore.After(now):
		return RoleAnnounced
	}
	return RoleRetired
}
