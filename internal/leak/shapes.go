package leak

import (
	"regexp"
	"strings"
)

// A shape is what a private key looks like in one spelling. Only a text with the
// word in it is matched.
type shape struct {
	what, word string
	pattern    *regexp.Regexp
}

// The beginnings in base64 are those of PKCS#8 (RFC 5958) up to the secret, for
// RSA with a modulus of any length.
var shapes = []shape{
	{"a private key in PKCS#8, RSA", "BADANBgkqhkiG9w0BAQEFAASC", regexp.MustCompile(`BADANBgkqhkiG9w0BAQEFAASC[\w+/-]{16}`)},
	{"a private key in PKCS#8, P-256", "AgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG", regexp.MustCompile(`AgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG[\w+/-]{16}`)},
	{"a private key in PKCS#8, P-384", "AgEAMBAGByqGSM49AgEGBSuBBAAiBI", regexp.MustCompile(`AgEAMBAGByqGSM49AgEGBSuBBAAiBI[\w+/-]{16}`)},
	{"a private key in PKCS#8, Ed25519", "CAQAwBQYDK2VwBCIEI", regexp.MustCompile(`CAQAwBQYDK2VwBCIEI[\w+/-]{16}`)},
	{"a private key in PEM", "PRIVATE KEY-----", regexp.MustCompile(`BEGIN [A-Z0-9 ]*PRIVATE KEY-----(\s|\\+[nr])*[\w+/-]{16}`)},
	{"a private JSON web key", `"`, regexp.MustCompile(`"(d|p|q|dp|dq|qi)\\*"\s*:\s*\\*"[\w-]{32}`)},
	{"an RSA key, as Go prints it", " 65537} ", regexp.MustCompile(`\{\{\+?\d{64,} 65537\} \+?\d{64}`)},
	{"an RSA or EC key, as Go prints it", " D:", regexp.MustCompile(`\} D:\+?\d{32}`)},
	{"an RSA or EC key, as Go prints it", ", D:", regexp.MustCompile(`\}, D:\+?\d{32}`)},
	{"an EC key, as Go prints it", "} ", regexp.MustCompile(`\{\{\S+ \+?\d{64,} \+?\d{64,}\} \+?\d{32}`)},
	{"an Ed25519 key, as Go prints it", "ed25519.PrivateKey{", regexp.MustCompile(`ed25519\.PrivateKey\{0x\w+, 0x`)},
}

// Shape returns what in a text looks like a private key, whoever's it is, or "".
func Shape(text string) string {
	for _, s := range shapes {
		if strings.Contains(text, s.word) && s.pattern.MatchString(text) {
			return s.what
		}
	}
	return ""
}
