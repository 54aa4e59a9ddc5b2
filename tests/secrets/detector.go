// Package secrets proves that no private key leaks. Its test drives every public
// operation of every store, of signers and of verifiers through success and failure, for
// each kind of key, and searches every log record, error, HTTP answer and formatted value
// for every key and token that was made or read on the way. A public operation that the
// test does not drive is a failure. There is no long form.
//
// The [Detector] also serves other tests that have something to search.
package secrets

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
)

// Secrets are cut into pieces, so that a part of one is found too: 30 characters are enough,
// or 50 if a byte takes several. No piece occurs by chance.
const (
	dense  = 20 // hexadecimal, decimal, base64 and bytes
	sparse = 40 // lists
)

// A Detector finds secrets that it knows in text, in each form that a program may
// print them in.
type Detector struct {
	pieces map[string]piece // by their beginning
	known  map[string]bool  // numbers
}

type piece struct{ rest, what string }

// NewDetector returns a Detector that knows no secret.
func NewDetector() *Detector { return &Detector{map[string]piece{}, map[string]bool{}} }

// privateKey matches a private key that the Detector does not know, as PEM or as a JSON Web
// Key.
var privateKey = regexp.MustCompile(`PRIVATE KEY-----(\s|\\+[nr])*[\w+/]{16}|"(d|p|q|dp|dq|qi)\\*"\s*:\s*\\*"[\w-]{32}`)

// Find returns which secret a text shows, and in which form, or "".
func (d *Detector) Find(text string) string {
	for i := 0; i+dense <= len(text); i++ {
		if p, ok := d.pieces[text[i:i+dense]]; ok && strings.HasPrefix(text[i+dense:], p.rest) {
			return p.what
		}
	}
	if (strings.Contains(text, "PRIVATE") || strings.Contains(text, `"`)) && privateKey.MatchString(text) {
		return "what looks like a private key"
	}
	return ""
}

// Hide adds a text that must not be shown, such as a password or a token.
func (d *Detector) Hide(what, text string) { d.cut(what, text, dense) }

// HideBundle adds the private keys in PEM text. Their public halves are not secrets.
func (d *Detector) HideBundle(bundle []byte) {
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		parsed, _ := x509.ParsePKCS8PrivateKey(block.Bytes)
		switch k := parsed.(type) {
		case *rsa.PrivateKey:
			d.hideBytes("d of an RSA key", k.D.Bytes())
			for _, n := range []*big.Int{k.Primes[0], k.Primes[1], k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv} {
				d.hideBytes("a prime of an RSA key, or what follows from it", n.Bytes())
			}
		case *ecdsa.PrivateKey:
			if scalar, err := k.Bytes(); err == nil {
				d.hideBytes("d of an EC key", scalar)
			}
		case ed25519.PrivateKey:
			d.hideBytes("the seed of an Ed25519 key", k.Seed())
		}
	}
}

// hideBytes adds a secret number in every form.
func (d *Detector) hideBytes(what string, secret []byte) {
	if d.known[string(secret)] {
		return
	}
	d.known[string(secret)] = true
	number, list, dump := new(big.Int).SetBytes(secret), fmt.Sprint(secret), fmt.Sprintf("% x", secret)
	for form, text := range map[string]string{
		"raw": string(secret), "in decimal": number.String(),
		"in hexadecimal": fmt.Sprintf("%x", secret), "in upper case": fmt.Sprintf("%X", secret),
	} {
		d.cut(what+", "+form, text, dense)
	}
	for form, text := range map[string]string{
		"quoted": strconv.Quote(string(secret)), "as words of a big.Int": fmt.Sprint(number.Bits()),
		"as a list of bytes": list, "as JSON": strings.ReplaceAll(list, " ", ","),
		"as Go source": strings.TrimPrefix(fmt.Sprintf("%#v", secret), "[]byte"),
		"as a dump":    dump, "with colons": strings.ReplaceAll(dump, " ", ":"),
		"as a dump in upper case": strings.ToUpper(dump), "with colons in upper case": strings.ToUpper(strings.ReplaceAll(dump, " ", ":")),
	} {
		d.cut(what+", "+form, strings.Trim(text, `"[]{}`), sparse)
	}
	for _, text := range aligned(base64.StdEncoding, secret) {
		d.cut(what+", in base64", text, dense)
		// A bundle is base64 text, and may itself be printed as bytes.
		d.cut(what+", in base64 as a list of bytes", strings.Trim(fmt.Sprint([]byte(text)), "[]"), sparse)
		d.cut(what+", in base64 as hexadecimal", fmt.Sprintf("%x", text), dense)
		for _, again := range aligned(base64.StdEncoding, []byte(text)) {
			d.cut(what+", in base64 twice", again, dense)
		}
	}
	for _, text := range aligned(base64.URLEncoding, secret) {
		d.cut(what+", in base64url", text, dense)
	}
}

// aligned encodes bytes as they appear among other bytes, at each of the three
// alignments.
func aligned(encoding *base64.Encoding, secret []byte) (texts []string) {
	for shift := range 3 {
		text := secret[shift:]
		texts = append(texts, encoding.EncodeToString(text[:len(text)/3*3]))
	}
	return texts
}

// cut adds the pieces of a text. Those of a short text overlap more; otherwise half of it
// could go unnoticed.
func (d *Detector) cut(what, text string, size int) {
	for i := 0; i+size <= len(text); i += min(size/2, max(1, len(text)/64)) {
		d.pieces[text[i:i+dense]] = piece{text[i+dense : i+size], what}
	}
}
