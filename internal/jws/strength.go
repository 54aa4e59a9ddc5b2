package jws

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
)

const (
	minRSABits = 2048
	maxRSABits = 8192 // the cost of a signature grows with the square of the length
)

// wellFormed reports whether a public key has all its parts, and those of an EC key are a
// point of its curve. Keys that were decoded are; one that a program has put together may
// not be, and would cause a panic later.
func wellFormed(public crypto.PublicKey) bool {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return public != nil && public.N != nil
	case *ecdsa.PublicKey:
		if public == nil || public.Curve != elliptic.P256() && public.Curve != elliptic.P384() {
			return public != nil && public.Curve != nil // and refused for its curve
		}
		return public.X != nil && public.Y != nil && public.Curve.IsOnCurve(public.X, public.Y) //nolint:staticcheck // the only way to ask whether they are nil
	case ed25519.PublicKey:
		return len(public) == ed25519.PublicKeySize
	}
	return true
}

func checkRSA(public *rsa.PublicKey) error {
	switch {
	case public.N.BitLen() < minRSABits:
		return fmt.Errorf("the RSA key has %d bits; at least %d are needed", public.N.BitLen(), minRSABits)
	case public.N.BitLen() > maxRSABits:
		return fmt.Errorf("the RSA key has %d bits; at most %d are allowed", public.N.BitLen(), maxRSABits)
	case public.N.Bit(0) == 0:
		return errors.New("the RSA key has an even modulus, so it is no RSA key")
	case public.E < 65537:
		return fmt.Errorf("the RSA key has public exponent %d; at least 65537 is needed", public.E)
	case fromROCA(public):
		return errors.New("the RSA key was made by a faulty chip, and its private half can be worked out from it (CVE-2017-15361)")
	}
	return nil
}

// fromROCA reports whether an RSA key was made by the library of Infineon's chips
// (smart cards, TPMs) that drew the primes from a small set: "The Return of
// Coppersmith's Attack", Nemec et al. 2017, CVE-2017-15361. Modulo each of the
// first 126 primes, such a modulus is a power of 65537. The chance that another
// one is, too, is about 1 in 2^167.
func fromROCA(public *rsa.PublicKey) bool {
	var residue big.Int
	for p := int64(3); p <= 701; p += 2 {
		prime := big.NewInt(p)
		if !prime.ProbablyPrime(0) { // exact for so small a number
			continue
		}
		rest, power := residue.Mod(public.N, prime).Int64(), int64(1)
		for rest != power {
			if power = power * 65537 % p; power == 1 {
				return false
			}
		}
	}
	return true
}

// lowOrder reports whether an Ed25519 public key encodes one of the points of
// order 1, 2, 4 or 8, in canonical form or not: a signature under such a key
// can be made without a private key. The table holds their y coordinates, most
// significant byte first (RFC 7748 section 7 lists the same subgroup).
func lowOrder(public ed25519.PublicKey) bool {
	var y [ed25519.PublicKeySize]byte
	for i, b := range public {
		y[len(y)-1-i] = b
	}
	y[0] &= 0x7f // the top bit is the sign of x
	switch fmt.Sprintf("%x", y) {
	case "0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000001",
		"05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826",
		"7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7",
		"7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffec", // p-1
		"7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed", // p, that is 0
		"7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffee": // p+1, that is 1
		return true
	}
	return false
}
