package promises

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A pair is a private key and its certificate.
type pair struct {
	kid, alg   string
	private    crypto.Signer
	begin, end time.Time
	text       string // the two PEM blocks
}

// A bundle is what a text says by DESIGN.md, read without the code under test.
type bundle struct {
	text    string
	blocks  []string
	pairs   []pair               // newest first, without those retired or revoked here
	retired map[string]time.Time // by kid, until when they are trusted
	revoked map[string]bool
	bad     string // why it cannot be read
}

func read(text string) *bundle {
	b := &bundle{text: text, retired: map[string]time.Time{}, revoked: map[string]bool{}}
	var private *pem.Block
	seen := map[string]bool{}
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		b.blocks = append(b.blocks, string(pem.EncodeToMemory(block)))
		id := ""
		switch {
		case (block.Type == "CERTIFICATE") != (private != nil):
			b.bad = "a private key or a certificate is alone"
		case block.Type == "PRIVATE KEY":
			private = block
			continue
		case block.Type == "CERTIFICATE":
			p := readPair(private, block)
			b.pairs, id, private = append(b.pairs, p), p.kid, nil
		case block.Type == "RETIRED KEY":
			id = "retired " + block.Headers["Kid"]
			b.retired[block.Headers["Kid"]] = testkit.Must(time.Parse(time.RFC3339, block.Headers["Until"]))
		case block.Type == "REVOKED KEY":
			b.revoked[block.Headers["Kid"]] = true
		default:
			b.bad = "unknown block " + block.Type
		}
		if seen[id] && id != "" {
			b.bad = "a key comes twice"
		}
		seen[id] = true
	}
	switch {
	case private != nil:
		b.bad = "a private key is alone"
	case len(b.blocks) == 0:
		b.bad = "no block"
	case len(b.blocks) != strings.Count(text, "-----END "), len(b.blocks) != strings.Count(text, "-----BEGIN "):
		b.bad = "cut off inside a block"
	case len(text) > 64<<10:
		b.bad = "too long"
	}
	b.pairs = slices.DeleteFunc(b.pairs, func(p pair) bool { _, retired := b.retired[p.kid]; return retired || b.revoked[p.kid] })
	slices.SortStableFunc(b.pairs, func(a, c pair) int { return c.begin.Compare(a.begin) })
	for kid := range b.revoked {
		delete(b.retired, kid)
	}
	return b
}

func readPair(private, certificate *pem.Block) pair {
	cert := testkit.Must(x509.ParseCertificate(certificate.Bytes))
	p := pair{kid: testkit.Thumbprint(cert.PublicKey), private: testkit.Must(x509.ParsePKCS8PrivateKey(private.Bytes)).(crypto.Signer),
		begin: cert.NotBefore, end: cert.NotAfter, text: string(pem.EncodeToMemory(private)) + string(pem.EncodeToMemory(certificate))}
	p.alg = testkit.Method(p.private).Alg()
	return p
}

// mentions reports whether the bundle says anything about a kid, and stops whether it says that
// the key must not sign.
func (b *bundle) mentions(kid string) bool { return b.stops(kid) || b.find(kid) != nil }

func (b *bundle) stops(kid string) bool {
	_, retired := b.retired[kid]
	return retired || b.revoked[kid]
}

func (b *bundle) find(kid string) *pair {
	for i := range b.pairs {
		if b.pairs[i].kid == kid {
			return &b.pairs[i]
		}
	}
	return nil
}

// without returns the bundle as an instance uses it that knows of more revocations: what is
// older than a revoked key that has begun to sign neither signs again nor is trusted for longer.
// A key that was revoked before it began has taken over from none: then the bundle has the key
// that signs now.
func (b *bundle) without(revoked map[string]bool, signs *pair, now time.Time, retain time.Duration) *bundle {
	next := *b
	ends, lost := b.ends(retain), false
	next.pairs, next.retired = nil, maps.Clone(b.retired)
	for _, p := range b.pairs {
		switch {
		case revoked[p.kid]:
			lost = lost || !p.begin.After(now) && (signs == nil || b.find(signs.kid) == nil)
		case lost:
			next.retired[p.kid] = ends[p.kid]
		default:
			next.pairs = append(next.pairs, p)
		}
	}
	return &next
}

// ends returns until when each fleet key is trusted.
func (b *bundle) ends(retain time.Duration) map[string]time.Time {
	ends := maps.Clone(b.retired)
	var next *pair
	for _, p := range b.pairs {
		ends[p.kid] = p.end
		if next != nil && next.begin.Add(retain).Before(p.end) {
			ends[p.kid] = next.begin.Add(retain)
		}
		next = &p
	}
	return ends
}

// signing returns the key that signs at a time by a clock, and whether that is early.
func (b *bundle) signing(now time.Time) (signs *pair, early bool) {
	for i, p := range b.pairs {
		switch ahead := p.begin.Sub(now); {
		case ahead <= 0 && now.Before(p.end):
			return &b.pairs[i], false
		case ahead > 0 && ahead <= 365*testkit.Day:
			signs, early = &b.pairs[i], true // the last one found begins first
		}
	}
	return signs, early
}

// newPair makes a key as an operator would.
func newPair(alg string, begin, end time.Time) pair {
	private := testkit.NewKey(alg)
	key := pem.Block{Type: "PRIVATE KEY", Bytes: testkit.Must(x509.MarshalPKCS8PrivateKey(private))}
	cert := pem.Block{Type: "CERTIFICATE", Bytes: testkit.Certificate(private, begin, end).Raw}
	return readPair(&key, &cert)
}

func retiredBlock(p pair, until time.Time) string {
	h := map[string]string{"Kid": p.kid, "Until": until.UTC().Truncate(time.Second).Format(time.RFC3339)}
	digest := sha256.Sum256([]byte("Kid: " + h["Kid"] + "\nUntil: " + h["Until"] + "\nAlg: \n"))
	h["Sum"] = hex.EncodeToString(digest[:8])
	return string(pem.EncodeToMemory(&pem.Block{Type: "RETIRED KEY", Headers: h, Bytes: testkit.Must(x509.MarshalPKIXPublicKey(p.private.Public()))}))
}

func revokedBlock(kid string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "REVOKED KEY", Headers: map[string]string{"Kid": kid},
		Bytes: testkit.Must(base64.RawURLEncoding.DecodeString(kid))}))
}
