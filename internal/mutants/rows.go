package main

import "slices"

// A section of docs/faults.md.
type section struct {
	title, intro string
	rows         []row
}

// A row is something that goes wrong, or that somebody tries.
type row struct {
	id    string
	fault string   // what happens
	want  string   // what fleetkey does then
	not   string   // why nothing has to be proven; "": it has
	also  []string // tests that prove it beside those of the mutants; "dir name" if not in the root
}

// sections returns the whole document.
func sections() []section { return slices.Concat(tokenSections, storeSections, loadSections) }

var tokenSections = []section{
	{"Hostile tokens",
		"Verify looks at a token in this order, which is that of RFC 8725 and its successor, and stops at the first thing that is wrong.",
		[]row{
			{id: "T1", fault: "A token of any length, or with more or fewer than three segments",
				want: "Refused before anything is decoded: at most 16 KiB, three segments, none of them empty."},
			{id: "T2", fault: "Characters other than base64url and dots, line breaks included, which Go's base64 skips",
				want: "Refused, so that one token has one spelling."},
			{id: "T3", fault: "Base64 that is not canonical: padding, or unused bits that are set",
				want: "Refused."},
			{id: "T4", fault: "A header that is not one strict JSON object: duplicate names, invalid UTF-8, other cases, trailing data",
				want: "Refused."},
			{id: "T5", fault: "Header parameters that name a key or change what is signed: crit, b64, jwk, jku, x5u, x5c, zip and others",
				want: "Refused, whatever they say. Nothing is ever fetched."},
			{id: "T6", fault: "A token of another type, such as an ID token",
				want: "Refused: typ has to be at+jwt, with or without application/, in any case."},
			{id: "T7", fault: "A kid that is absent, very long, unknown, or aims at a database or a file system",
				want: "It is looked up in memory, up to 128 bytes, and used for nothing else."},
			{id: "T8", fault: "alg none, another case, another algorithm than the key's, or HMAC with the public key as secret",
				want: "Refused: a key has one algorithm, and the header has to name just that."},
			{id: "T9", fault: "A key that is weak, of another kind, or meant for something else",
				want: "It does not get into the key set: RSA of 2048 bits with exponent 65537 or more and not of a faulty chip, P-256, P-384, or Ed25519 not of low order; usage, if said, includes signatures."},
			{id: "T10", fault: "A signature that is wrong, in another form, of another algorithm's parameters, or zero",
				want: "Refused before any claim is looked at."},
			{id: "T11", fault: "Claims that are not strict JSON, have a name twice, in another case, or of a wrong type",
				want: "Refused, since another reader might see another token."},
			{id: "T12", fault: "A token that has expired, is not valid yet, or has no times",
				want: "Refused, also if it is remembered from before; clocks may differ by ClockSkew."},
			{id: "T13", fault: "A token with a longer lifetime than the fleet grants",
				want: "Refused, and never issued."},
			{id: "T14", fault: "A token of another issuer, for another audience, or of nobody",
				want: "Refused: iss, aud and sub are required."},
			{id: "T15", fault: "A caller who uses what comes with an error",
				want: "Nothing does: no token, no claims, and the error does not quote the token."},
			{id: "T16", fault: "Claims to sign that collide with registered ones in any case, or hold invalid UTF-8",
				want: "Not issued."},
			{id: "T17", fault: "A dependency that changes golang-jwt's table of signing methods",
				want: "fleetkey holds its methods itself."},
			{id: "T18", fault: "The second form of an ECDSA signature, or a token that collides in the cache",
				want: "A token is remembered under its whole text. A revocation list has to go by jti."},
			{id: "T19", fault: "Encrypted tokens: p2c, zip, decompression, padding oracles",
				want: "Not read.", not: "fleetkey reads no encrypted tokens, so there is no code to break; T1 refuses five segments"},
		}},
	{"Flaws that others had", "Vulnerabilities of JWT libraries and OpenID servers since 2020, and what keeps fleetkey from the same.",
		[]row{
			{id: "CVE-2025-30204", fault: "golang-jwt: many dots took memory", want: "Tokens are at most 16 KiB long."},
			{id: "CVE-2024-51744", fault: "golang-jwt: expired and badly signed was reported as both", want: "The signature comes first, and is the only reason then."},
			{id: "CVE-2020-26160", fault: "jwt-go: an aud of a wrong type passed", want: "aud is a string or a list of strings."},
			{id: "CVE-2026-32597", fault: "PyJWT, Authlib (CVE-2025-59420) and fast-jwt (GHSA-hm7r-c7qw-ghp6): crit was ignored", want: "A header with crit is refused."},
			{id: "CVE-2024-21664", fault: "jwx: nil dereference on a JSON token", want: "Only the compact form is read, and all readers are fuzzed."},
			{id: "CVE-2025-22149", fault: "jwkset: revoked keys stayed trusted after a refresh", want: "A refresh replaces the set."},
			{id: "CVE-2024-29892", fault: "zitadel: custom claims could override reserved ones", want: "Issue refuses them."},
			{id: "CVE-2026-55669", fault: "zitadel (and GHSA-wxg7-w2v3-w38g): aud, exp and iat were not checked", want: "They are required."},
			{id: "CVE-2026-27840", fault: "zitadel: truncated tokens were valid", want: "There is one canonical form."},
			{id: "CVE-2020-15223", fault: "fosite (and CVE-2020-15222): an error of the store was taken for success", want: "No error of a store is taken for an answer."},
			{id: "CVE-2022-21449", fault: "Java: an ECDSA signature of zeros was valid", want: "Refused."},
			{id: "GO-KEYS", fault: "Go: parsers of keys, PEM and ASN.1 that panic or take time and memory (CVE-2025-22865, CVE-2025-61723, CVE-2025-58185, CVE-2026-33818)",
				want: "A bundle is at most 64 KiB long, and no more of a file is read. CI runs govulncheck."},
			{id: "JWE", fault: "go-jose and jwx: CVE-2025-27144, CVE-2026-34986, GHSA-2c7c-3mj9-8fqh, CVE-2024-28180, GHSA-rm8v-mxj3-5rmq, CVE-2023-49290, CVE-2024-28122",
				not: "fleetkey reads no tokens with go-jose and no encrypted ones at all"},
			{id: "SERVERS", fault: "hydra and dex: CVE-2020-5300, CVE-2026-33504, CVE-2024-23656, GHSA-7qjx-gp9h-65qj",
				not: "fleetkey has no grants, no database and no connectors"},
			{id: "GO-OTHER", fault: "Go and the AWS SDK: CVE-2026-39822 (os.Root and links), GHSA-xmrv-pmrh-hhx2 (event streams)",
				not: "fixed in the versions that go.mod asks for, or not used; CI runs govulncheck"},
		}},
}
