package main

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// This file reads PFX, which is PKCS#12 (RFC 7292), and encrypted PKCS#8 (RFC 5958).
// go-pkcs12 does the work, but requires one key, a certificate, a MAC and at most two
// parts. Other files are split here into several files that it can read.

type (
	pfxFile struct {
		Version int
		Safe    pfxItem       // list of parts
		MAC     asn1.RawValue `asn1:"optional"`
	}
	pfxItem struct { // a part, or one of the bags in it
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"tag:0,explicit"`
		Attributes asn1.RawValue `asn1:"optional"`
	}
)

var (
	oidData        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidShroudedBag = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 12, 10, 1, 2}
	oidPBMAC1      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
	oidPBKDF2      = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidHMACSHA256  = asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}
)

// maxIterations limits the work of deriving keys from a password to a few seconds per file.
// Java's keytool uses 10,000 iterations per key, OpenSSL 2,048.
const maxIterations = 2_000_000

// iterations sums the iterations in DER: each is an INTEGER after a salt, an OCTET STRING,
// which may also contain DER.
func iterations(der []byte, depth int) (sum int64) {
	for afterSalt := false; len(der) > 0 && depth < 20 && sum <= maxIterations; {
		var part asn1.RawValue
		rest, err := asn1.Unmarshal(der, &part)
		if err != nil {
			break
		}
		salt := part.Class == asn1.ClassUniversal && part.Tag == asn1.TagOctetString
		if afterSalt && part.Tag == asn1.TagInteger {
			number, _ := new(big.Int).SetBytes(part.Bytes).Float64()
			sum += int64(min(number, maxIterations+1))
		} else if salt || part.IsCompound {
			sum += iterations(part.Bytes, depth+1)
		}
		afterSalt, der = salt, rest
	}
	return sum
}

// encrypted adds the content of a PFX or an encrypted private key. It asks for the password
// unless the empty one works. The command convert is for files that fleetkey cannot read.
func (b *brought) encrypted(der []byte, convert string) error {
	if iterations(der, 0) > maxIterations {
		return fmt.Errorf("more than %d iterations to derive keys from the password", maxIterations)
	}
	keys, certificates, err := decodePFX(der, "")
	if err != nil {
		password, passwordErr := b.password()
		if passwordErr != nil {
			return passwordErr
		}
		keys, certificates, err = decodePFX(der, password)
	}
	says := func(text string) bool { return strings.Contains(err.Error(), text) } // these errors have only a text
	switch {
	case err == nil:
	case errors.Is(err, pkcs12.ErrIncorrectPassword), says("incorrect padding"), says("unmarshaling decrypted private key"):
		return errPassword
	case says("x509: ") && !says("private key"): // a certificate, such as one with a negative serial number
		return fmt.Errorf("a certificate in it cannot be read (%w): extract only the private key with `openssl pkcs12 -in FILE -nocerts -nodes -out NEW.key`", err)
	default:
		return fmt.Errorf("fleetkey cannot read it (%w): convert it with `%s`", err, convert)
	}
	b.certificates = append(b.certificates, certificates...)
	for _, key := range keys {
		if err := b.key(key, broughtKey{}); err != nil {
			return err
		}
	}
	return nil
}

func decodePFX(der []byte, password string) (keys []any, certificates []*x509.Certificate, err error) {
	key, first, others, err := pkcs12.DecodeChain(der, password)
	if err == nil || errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return []any{key}, append(others, first), err
	}
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // for parts without one
	cert, err := certify(private, &x509.Certificate{})
	if err != nil {
		return nil, nil, err
	}
	spare, err := pkcs12.Passwordless.Encode(private, cert, nil, "")
	if err != nil {
		return nil, nil, err
	}
	certPart, keyPart := pfxParts(spare)[0], pfxParts(spare)[1]
	for _, part := range split(der) {
		key, first, others, err := pkcs12.DecodeChain(pfxOf(password, part, keyPart), password)
		if err != nil { // the part contains a key, so add a certificate instead
			key, first, others, err = pkcs12.DecodeChain(pfxOf(password, part, certPart), password)
		}
		if err != nil {
			return nil, nil, err
		}
		keys, certificates = append(keys, key), append(append(certificates, first), others...)
	}
	keys = slices.DeleteFunc(keys, func(key any) bool { return private.Equal(key) })
	return keys, slices.DeleteFunc(certificates, cert.Equal), nil
}

// split returns parts with at most one key, unless keys are encrypted together, or the key
// itself if it is an encrypted private key.
func split(der []byte) (parts []pfxItem) {
	whole := pfxParts(der)
	if whole == nil {
		return []pfxItem{partOf(pfxItem{ID: oidShroudedBag, Value: explicit(der)})}
	}
	for _, part := range whole {
		var contents []byte
		var bags []pfxItem
		if !part.ID.Equal(oidData) || !unmarshal(part.Value.Bytes, &contents) || !unmarshal(contents, &bags) {
			parts = append(parts, part) // encrypted
		}
		for _, bag := range bags {
			parts = append(parts, partOf(bag))
		}
	}
	return parts
}

func pfxParts(der []byte) (parts []pfxItem) {
	var file pfxFile
	var safe []byte
	if unmarshal(der, &file) && unmarshal(file.Safe.Value.Bytes, &safe) && unmarshal(safe, &parts) {
		return parts
	}
	return nil
}

// partOf returns a part that contains one bag unchanged.
func partOf(bag pfxItem) pfxItem {
	return pfxItem{ID: oidData, Value: explicit(marshal(marshal([]pfxItem{bag})))}
}

// pfxOf returns a PFX of parts. The MAC of the original file was checked, if any. go-pkcs12
// also requires one here, so this is PBMAC1 (RFC 9579).
func pfxOf(password string, parts ...pfxItem) []byte {
	safe, salt := marshal(parts), make([]byte, 16)
	file := pfxFile{Version: 3, Safe: pfxItem{ID: oidData, Value: explicit(marshal(safe))}}
	if key, err := pbkdf2.Key(sha256.New, password, salt, 1, sha256.Size); err == nil && password != "" {
		mac, hash := hmac.New(sha256.New, key), []any{oidHMACSHA256}
		mac.Write(safe)
		kdf := []any{oidPBKDF2, []any{salt, 1, sha256.Size, hash}}
		file.MAC.FullBytes = marshal([]any{[]any{[]any{oidPBMAC1, []any{kdf, hash}}, mac.Sum(nil)}, salt})
	}
	return marshal(file)
}

func explicit(der []byte) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: der}
}

func unmarshal(der []byte, into any) bool {
	rest, err := asn1.Unmarshal(der, into)
	return err == nil && len(rest) == 0
}

// marshal encodes values that were decoded or created here.
func marshal(value any) []byte {
	der, err := asn1.Marshal(value)
	if err != nil {
		panic("fleetkey: " + err.Error())
	}
	return der
}
