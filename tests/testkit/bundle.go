package testkit

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// A Pair is a private key of a bundle and its certificate.
type Pair struct {
	ID, Alg             string
	Private             crypto.Signer
	NotBefore, NotAfter time.Time
	Text                string // the two PEM blocks
}

// A Content is a bundle's content by the documentation, read without the code under test.
type Content struct {
	Text    string
	Blocks  []string
	Pairs   []Pair               // newest first, without those retired or revoked here
	Retired map[string]time.Time // by kid, until when they are trusted
	Revoked map[string]bool
	Bad     string // why it cannot be read
}

// Read reads a bundle. It panics if something in a block is damaged.
func Read(bundle []byte) *Content {
	c := &Content{Text: string(bundle), Retired: map[string]time.Time{}, Revoked: map[string]bool{}}
	var private *pem.Block
	seen := map[string]bool{}
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		c.Blocks = append(c.Blocks, string(pem.EncodeToMemory(block)))
		id := ""
		switch {
		case (block.Type == "CERTIFICATE") != (private != nil):
			c.Bad = "a private key or a certificate is alone"
		case block.Type == "PRIVATE KEY":
			private = block
			continue
		case block.Type == "CERTIFICATE":
			p := readPair(private, block)
			c.Pairs, id, private = append(c.Pairs, p), p.ID, nil
		case block.Type == "RETIRED KEY":
			id = "retired " + block.Headers["Kid"]
			c.Retired[block.Headers["Kid"]] = Must(time.Parse(time.RFC3339, block.Headers["Until"]))
		case block.Type == "REVOKED KEY":
			c.Revoked[block.Headers["Kid"]] = true
		default:
			c.Bad = "unknown block " + block.Type
		}
		if seen[id] && id != "" {
			c.Bad = "a key comes twice"
		}
		seen[id] = true
	}
	switch {
	case private != nil:
		c.Bad = "a private key is alone"
	case len(c.Blocks) == 0:
		c.Bad = "no block"
	case len(c.Blocks) != strings.Count(c.Text, "-----END "), len(c.Blocks) != strings.Count(c.Text, "-----BEGIN "):
		c.Bad = "cut off inside a block"
	case len(bundle) > 64<<10:
		c.Bad = "too long"
	}
	c.Pairs = slices.DeleteFunc(c.Pairs, func(p Pair) bool { return c.Revoked[p.ID] || !c.Retired[p.ID].IsZero() })
	slices.SortStableFunc(c.Pairs, func(a, b Pair) int { return b.NotBefore.Compare(a.NotBefore) })
	maps.DeleteFunc(c.Retired, func(kid string, _ time.Time) bool { return c.Revoked[kid] })
	return c
}

func readPair(private, certificate *pem.Block) Pair {
	cert, key := Must(x509.ParseCertificate(certificate.Bytes)), Must(x509.ParsePKCS8PrivateKey(private.Bytes)).(crypto.Signer)
	return Pair{Thumbprint(cert.PublicKey), Method(key).Alg(), key, cert.NotBefore, cert.NotAfter,
		string(pem.EncodeToMemory(private)) + string(pem.EncodeToMemory(certificate))}
}

// Find returns the pair with a kid, or nil.
func (c *Content) Find(kid string) *Pair {
	if i := slices.IndexFunc(c.Pairs, func(p Pair) bool { return p.ID == kid }); i >= 0 {
		return &c.Pairs[i]
	}
	return nil
}

// Holds reports whether the bundle has a key, with its private half or as a retired one.
func (c *Content) Holds(kid string) bool { return c.Find(kid) != nil || !c.Retired[kid].IsZero() }

// Kids returns the kids of the keys that the bundle holds.
func (c *Content) Kids() []string {
	kids := slices.Sorted(maps.Keys(c.Retired))
	for _, p := range c.Pairs {
		kids = append(kids, p.ID)
	}
	return kids
}

// Bundle returns a key pair as an operator would write it, with a self-signed certificate.
func Bundle(private crypto.Signer, begin, end time.Time) []byte {
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: Must(x509.MarshalPKCS8PrivateKey(private))}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: Certificate(private, begin, end).Raw})...)
}

// ForeignBundle returns the bundle of another fleet.
func ForeignBundle(t testing.TB, cfg fleetkey.Config) []byte {
	t.Helper()
	other := fleetkeytest.NewStore()
	s, err := fleetkey.NewSigner(t.Context(), other, cfg)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	bundle, _ := other.Content()
	return bundle
}
