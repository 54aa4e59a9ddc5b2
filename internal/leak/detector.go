// Package leak finds private keys in text, whatever way they came into it.
//
// A [Detector] knows certain secrets and finds them exactly, in every spelling
// that a program may print them in. [Shape] knows none and finds what looks like
// a private key. Command leaktest runs tests, makes every process in them tell
// its keys ([NewRecord]), and looks for those in all that was printed.
package leak

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"sync"
)

// A piece has so many characters, or so many where each byte takes several: at
// least 50 bits, that turn up by chance nowhere.
const (
	pieceSize = 16
	dumpSize  = 24
	listSize  = 40
)

// A Detector knows secrets in every form that a program may print them in, cut
// into pieces, so that a part of a secret is found as well, wherever it begins:
// 27 characters (69 of a list of bytes) are enough. It is safe for concurrent
// use. Make one with [NewDetector].
type Detector struct {
	mu     sync.Mutex
	pieces map[string]string // to what they are pieces of
	// filter has a bit for the beginning of each piece, so that one look tells
	// for most places in a text that no piece is there.
	filter []uint64
	known  map[string]bool
}

const filterBits = 24

// NewDetector returns a Detector that knows no secret.
func NewDetector() *Detector {
	return &Detector{pieces: map[string]string{}, known: map[string]bool{}, filter: make([]uint64, 1<<filterBits/64)}
}

// Pieces returns how many pieces of secrets it knows.
func (d *Detector) Pieces() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.pieces)
}

// Find returns what a text gives away, as the name of the secret, or "".
func (d *Detector) Find(text string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := 0; i+pieceSize <= len(text); i++ {
		if slot, bit := filterSlot(text[i:]); d.filter[slot]&bit == 0 {
			continue
		}
		for _, size := range []int{pieceSize, dumpSize, listSize} {
			if what := d.pieces[text[i:min(i+size, len(text))]]; what != "" {
				return what
			}
		}
	}
	return ""
}

// filterSlot returns where the filter has the first eight bytes of a text.
func filterSlot(text string) (slot int, bit uint64) {
	_ = text[7]
	var head [8]byte
	copy(head[:], text)
	hash := binary.LittleEndian.Uint64(head[:]) * 0x9e3779b97f4a7c15 >> (64 - filterBits)
	return int(hash / 64), 1 << (hash % 64)
}

// HideText adds a text that nobody may see.
func (d *Detector) HideText(what, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut(what, text, pieceSize)
}

// cut adds the pieces of a text. Those of a short one overlap, else half of it
// could be shown.
func (d *Detector) cut(what, text string, size int) {
	step := min(size*3/4, max(1, len(text)/8))
	for i := 0; i+size <= len(text); i += step {
		piece := text[i : i+size]
		if plain(piece) {
			continue
		}
		d.pieces[piece] = what
		slot, bit := filterSlot(piece)
		d.filter[slot] |= bit
	}
}

// plain reports whether a piece is no secret by itself, since few different
// characters are in it: keys that tests make up can be mostly zeros.
func plain(piece string) bool {
	var seen [256]bool
	n := 0
	for _, c := range []byte(piece) {
		if !seen[c] {
			seen[c] = true
			n++
		}
	}
	return n < 5
}

// HideBytes adds bytes, in the spellings that they commonly have.
func (d *Detector) HideBytes(what string, secret []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(secret) < 8 || d.known[string(secret)] {
		return
	}
	d.known[string(secret)] = true
	d.cut(what+", raw", string(secret), pieceSize)
	d.cut(what+", quoted", strings.Trim(strconv.Quote(string(secret)), `"`), listSize)
	for _, format := range []string{"%x", "%X"} {
		d.cut(what+", in hexadecimal", fmt.Sprintf(format, secret), pieceSize)
		dump := fmt.Sprintf(strings.Replace(format, "%", "% ", 1), secret)
		d.cut(what+", in hexadecimal", dump, dumpSize)
		d.cut(what+", in hexadecimal", strings.ReplaceAll(dump, " ", ":"), dumpSize)
	}
	list := strings.Trim(fmt.Sprint(secret), "[]")
	d.cut(what+", as a list of bytes", list, listSize)
	d.cut(what+", as a list of bytes", strings.ReplaceAll(list, " ", ","), listSize)
	d.cut(what+", as Go source", strings.Trim(strings.TrimPrefix(fmt.Sprintf("%#v", secret), "[]byte"), "{}"), listSize)
	d.cut(what+", in decimal", new(big.Int).SetBytes(secret).String(), pieceSize)
	for tail := secret; len(tail) >= 8; tail = tail[:len(tail)-8] { // the words of a big.Int and of crypto/internal
		d.cut(what+", as words", strconv.FormatUint(binary.BigEndian.Uint64(tail[len(tail)-8:]), 10), pieceSize)
	}
	for shift := range 3 { // how it lies among other bytes that are encoded with it
		text := secret[shift:]
		text = text[:len(text)/3*3]
		d.cut(what+", in base64", base64.StdEncoding.EncodeToString(text), pieceSize)
		d.cut(what+", in base64url", base64.URLEncoding.EncodeToString(text), pieceSize)
	}
}

// HideKey adds the private parts of a key: *[ecdsa.PrivateKey],
// [ed25519.PrivateKey] or *[rsa.PrivateKey]. Its public parts are no secrets.
func (d *Detector) HideKey(private crypto.Signer) {
	switch k := private.(type) {
	case *rsa.PrivateKey:
		d.HideRSA(k.D, k.Primes[0], k.Primes[1])
	case *ecdsa.PrivateKey:
		scalar, _ := k.Bytes() // fails for a curve that is none
		d.HideBytes("d of an EC key", scalar)
	case ed25519.PrivateKey:
		d.HideBytes("the seed of an Ed25519 key", k.Seed())
	default:
		panic(fmt.Sprintf("leak: no way to hide a %T", private))
	}
}

// HideBundle adds the PKCS#8 keys of PEM text.
func (d *Detector) HideBundle(bundle []byte) {
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			d.HideKey(parsed.(crypto.Signer))
		}
	}
}

// HideRSA adds the private exponent of an RSA key, its primes, and what follows
// from them (RFC 8017 section 3.2).
func (d *Detector) HideRSA(exponent, p, q *big.Int) {
	one := big.NewInt(1)
	rest := func(prime *big.Int) *big.Int {
		return new(big.Int).Mod(exponent, new(big.Int).Sub(prime, one))
	}
	parts := map[string]*big.Int{"d": exponent, "p": p, "q": q}
	if p.Cmp(one) > 0 && q.Cmp(one) > 0 { // a test may make a key that is none
		parts["dp"], parts["dq"], parts["qi"] = rest(p), rest(q), new(big.Int).ModInverse(q, p)
	}
	for name, part := range parts {
		if part != nil {
			d.HideBytes(name+" of an RSA key", part.Bytes())
		}
	}
}
