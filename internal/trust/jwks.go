package trust

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/fleetkey/fleetkey/internal/jws"
)

// maxPublished is the maximum number of keys in a JSON Web Key Set.
const maxPublished = 256

// Reasons to skip a key of a JSON Web Key Set.
const (
	skipMalformed   = "malformed"   // not a key (RFC 7517, RFC 7518 section 6), or with a duplicate member
	skipUnsupported = "unsupported" // type, curve or algorithm
	skipWeak        = "weak"
	skipPrivate     = "private"   // contains the private key, or is a shared secret
	skipUse         = "use"       // not for signatures
	skipUnnamed     = "unnamed"   // no kid, or a kid that no token can have
	skipIssuer      = "issuer"    // of another issuer (Entra)
	skipAmbiguous   = "ambiguous" // another key has the same kid and algorithm
)

// ParseJWKS returns the keys of an issuer's JSON Web Key Set (RFC 7517 section 5) that can
// verify tokens, and counts the other keys by the reason for skipping them. A set without a
// usable key is an error. With former, tokens follow the rules from before RFC 9068.
func ParseJWKS(document []byte, issuer string, former bool) (keys []*Key, skipped map[string]int, err error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	lenient := []json.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)} // in the set, but not in a key
	if err := json.Unmarshal(document, &set, lenient...); err != nil {
		return nil, nil, errors.New("the document is not a JSON Web Key Set")
	}
	if len(set.Keys) > maxPublished {
		return nil, nil, fmt.Errorf("the JSON Web Key Set has %d keys; at most %d are read", len(set.Keys), maxPublished)
	}
	skipped = map[string]int{}
	seen := map[pair]*Key{} // nil: skipped
	leaked := map[string]bool{}
	for _, raw := range set.Keys {
		k, why := parseJWK(raw, issuer)
		if why != "" {
			if why == skipPrivate && k != nil {
				leaked[jws.Thumbprint(k.Public)] = true
			}
			skipped[why]++
			continue
		}
		k.Former = former
		at := pair{k.ID, k.Alg.Name}
		first, known := seen[at]
		switch {
		case !known:
			seen[at] = k
			keys = append(keys, k)
		case first == nil || !first.same(k):
			skipped[skipAmbiguous]++
			if first != nil {
				skipped[skipAmbiguous]++
				seen[at] = nil
				keys = slices.DeleteFunc(keys, func(k *Key) bool { return k == first })
			}
		}
	}
	keys = slices.DeleteFunc(keys, func(k *Key) bool {
		if leaked[jws.Thumbprint(k.Public)] {
			skipped[skipPrivate]++
			return true
		}
		return false
	})
	if len(keys) == 0 {
		return nil, skipped, fmt.Errorf("none of the %d keys in the JSON Web Key Set can be used %v", len(set.Keys), skipped)
	}
	return keys, skipped, nil
}

func (k *Key) same(other *Key) bool {
	return k.Public.(interface{ Equal(crypto.PublicKey) bool }).Equal(other.Public)
}

// A jwk has the members that decide whether and how a key is used. Certificates are
// ignored, since a wrong certificate does not make a key wrong.
type jwk struct {
	Type       string   `json:"kty"`
	KeyID      string   `json:"kid"`
	Algorithm  string   `json:"alg"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	Issuer     string   `json:"issuer"`

	Curve string `json:"crv"`
	N     string `json:"n"`
	E     string `json:"e"`
	X     string `json:"x"`
	Y     string `json:"y"`

	Others map[string]jsontext.Value `json:",embed"`
}

// isPrivate reports whether a key has a member of private keys (RFC 7518 sections 6.2.2,
// 6.3.2 and 6.4.1, and priv of ML-DSA). Any of them reveals the key.
func (in *jwk) isPrivate() bool {
	return slices.ContainsFunc([]string{"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"}, func(name string) bool {
		member := in.Others[name]
		return member != nil && member.Kind() != 'n'
	})
}

// members returns why the members of a key rule it out, or "".
func (in *jwk) members(issuer string) (why string) {
	if in.Type != "RSA" && (in.Type != "OKP" || in.Curve != "Ed25519") && (in.Type != "EC" || in.Curve != "P-256" && in.Curve != "P-384") {
		return skipUnsupported
	}
	if in.Use != "" && in.Use != "sig" || in.Operations != nil && !slices.Contains(in.Operations, "verify") {
		return skipUse
	}
	if in.KeyID == "" || len(in.KeyID) > jws.MaxKeyID {
		return skipUnnamed
	}
	if in.Issuer != "" && in.Issuer != issuer && !fillsIn(in.Issuer, issuer) {
		return skipIssuer
	}
	return ""
}

// parseJWK returns a key, or the reason to skip it; for a leaked key, both.
func parseJWK(raw jsontext.Value, issuer string) (k *Key, why string) {
	var in jwk
	if json.Unmarshal(raw, &in) != nil {
		return nil, skipMalformed
	}
	if in.isPrivate() { // everyone who has read it can sign, so no kid of this key can be trusted
		if public, ok := in.public(); ok {
			if _, err := jws.AlgorithmOf(public, false); err == nil {
				k = &Key{Public: public}
			}
		}
		return k, skipPrivate
	}
	if why := in.members(issuer); why != "" {
		return nil, why
	}
	public, ok := in.public()
	if !ok {
		return nil, skipMalformed
	}
	alg, err := jws.AlgorithmOf(public, in.Algorithm == "PS256")
	if err != nil {
		return nil, skipWeak
	}
	if in.Algorithm != "" && in.Algorithm != alg.Name && !sameAlgorithm(in.Algorithm, alg.Name) {
		return nil, skipUnsupported
	}
	k = &Key{ID: in.KeyID, Alg: alg, Public: public, Published: true}
	if jws.CheckKeyID(k.ID) == nil { // other kids are found too, but not by the bytes of a header
		k.Header = jws.EncodeHeader(alg, k.ID, jws.AccessTokenType)
	}
	return k, ""
}

// public returns the public key.
func (in *jwk) public() (crypto.PublicKey, bool) {
	members := map[string]string{"kty": in.Type, "crv": in.Curve, "n": in.N, "e": in.E, "x": in.X, "y": in.Y}
	text, err := json.Marshal(members)
	var out jose.JSONWebKey
	if err != nil || out.UnmarshalJSON(text) != nil {
		return nil, false
	}
	return out.Key, true
}

// fillsIn reports whether an issuer is the template with a tenant filled in. Entra puts
// https://login.microsoftonline.com/{tenantid}/v2.0 into its keys.
func fillsIn(template, issuer string) bool {
	before, after, found := strings.Cut(template, "{tenantid}")
	tenant, ok := strings.CutPrefix(issuer, before)
	tenant, ok2 := strings.CutSuffix(tenant, after)
	return found && ok && ok2 && tenant != "" && !strings.Contains(tenant, "/")
}

// Fingerprint returns a text that is equal for equal keys with equal names.
func Fingerprint(keys []*Key) string {
	var lines []string
	for _, k := range keys {
		lines = append(lines, fmt.Sprintf("%q %s %s", k.ID, k.Alg.Name, jws.Thumbprint(k.Public)))
	}
	slices.Sort(lines)
	digest := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(digest[:16])
}
