package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey/tests/testkit"
)

// algorithms are all that fleetkey signs with.
var algorithms = []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"}

// A phase is a column of the table.
type phase int

const (
	before phase = iota
	announced
	activated
	retired
	brokenSignature
	keyGone
	revoked
	replaced
	phases // their number
)

// titles has the title and the meaning of the phases, as the table shows them.
var titles = [phases][2]string{
	before:          {"before", "one key, which signs"},
	announced:       {"announced", "the successor is in the JWKS and does not sign yet; a verifier from before and a new one"},
	activated:       {"just activated", "the successor signs; a verifier that was new when it was announced knows both keys without a fetch (the JWKS answers 503 meanwhile), a new one fetches both"},
	retired:         {"after", "the old key has left the JWKS; tokens of the successor, by a verifier of the time of the announcement and by a new one"},
	brokenSignature: {"broken signature", "a token of which one bit of the signature was changed"},
	keyGone:         {"retired key", "a token of the key that has left the JWKS"},
	revoked:         {"revoked key", "`Revoke` has taken the successor out and a fresh key signs at once; a verifier that has fetched the JWKS since takes a token of the fresh key and refuses one of the revoked key"},
	replaced:        {"fresh key, old cache", "a token of that fresh key, shown to a verifier that fetched the JWKS some seconds ago and does not know it: whether the library's default configuration looks again at once. Either is right; one that waits refuses good tokens for a while after `Revoke`"},
}

// A want is the right end of a check.
type want int

const (
	accept want = iota
	refuse
	either
)

// An outcome is how the checks of one phase ended, for one client and one
// algorithm.
type outcome struct {
	ran      bool
	accepted bool
	words    string // the client's own, if it refused
	failed   string // what went other than it should; "": nothing
}

// A row is a line of the table.
type row struct {
	algorithm string
	outcomes  [phases]outcome
}

// The verifiers, by when they are made.
const (
	early = "made before"
	late  = "made when announced"
	mid   = "made when activated"
	after = "made when retired"
	last  = "made when revoked"
)

// play takes all clients through the story with one algorithm: a key is replaced, and
// later its successor is stolen. What clients do wrong is in their rows.
func play(ctx context.Context, url string, mux *http.ServeMux, algorithm string, clients []*client) {
	f := newFleet(ctx, url, "/"+algorithm, algorithm, mux)
	defer f.close()
	for _, c := range clients {
		c.rows = append(c.rows, &row{algorithm: algorithm})
	}
	show := func(p phase, token string, w want, verifiers ...string) {
		for _, v := range verifiers {
			for _, c := range clients {
				c.show(p, request{Verifier: v, Issuer: f.issuer, Audience: audience, Algorithm: algorithm, Token: token}, w)
			}
		}
	}
	oldToken, oldKey := f.issue(ctx)
	show(before, oldToken, accept, early)

	check(f.issuing.Rotate(ctx))
	f.refresh(ctx)
	announcedKeys := f.published()
	oldToken, kid := f.issue(ctx)
	expect(kid == oldKey && len(announcedKeys) == 2, "the successor has to be announced and not sign")
	show(announced, oldToken, accept, early, late)

	f.advance(ctx, 24*time.Hour+2*time.Second) // Rotation.Announce
	newToken, newKey := f.issue(ctx)
	expect(newKey != oldKey && slices.Contains(announcedKeys, newKey), "the successor has to sign")
	f.unreachable.Store(true)
	show(activated, newToken, accept, late)
	show(activated, oldToken, accept, late)
	f.unreachable.Store(false)
	show(activated, newToken, accept, mid)
	show(activated, oldToken, accept, mid)

	f.advance(ctx, 24*time.Hour) // Rotation.Retain
	newToken, _ = f.issue(ctx)
	expect(slices.Equal(f.published(), []string{newKey}), "the old key has to leave the JWKS")
	show(retired, newToken, accept, late, after)
	show(brokenSignature, breakSignature(newToken), refuse, after)
	show(keyGone, oldToken, refuse, after)

	check(f.issuing.Revoke(ctx, newKey))
	f.refresh(ctx)
	freshToken, freshKey := f.issue(ctx)
	expect(freshKey != newKey && slices.Equal(f.published(), []string{freshKey}), "a fresh key has to stand in for the revoked one")
	show(revoked, freshToken, accept, last)
	show(revoked, newToken, refuse, last)
	show(replaced, freshToken, either, late)
}

// expect guards the test itself: without it the table would mean nothing.
func expect(ok bool, what string) {
	if !ok {
		panic(what)
	}
}

// show shows a token to a verifier of the client, and notes the outcome. A client
// that lacks the algorithm is asked in the first phase only, and has to refuse.
func (c *client) show(p phase, r request, w want) {
	supported := c.supports(r.Algorithm)
	if c.broken != nil || !supported && p != before {
		return
	}
	a, err := c.verify(r)
	if err != nil {
		c.broken = err
		return
	}
	o := &c.rows[len(c.rows)-1].outcomes[p]
	o.ran, o.accepted = true, a.Error == ""
	if !o.accepted {
		o.words = anonymous(a.Error, r)
	}
	var failed string
	switch {
	case o.accepted && a.Subject != subject:
		failed = fmt.Sprintf("accepted, but with sub %q", a.Subject)
	case !supported && o.accepted:
		failed = "accepted, although listed as not supported"
	case supported && w == accept && !o.accepted:
		failed = "refused: " + o.words
	case w == refuse && o.accepted:
		failed = "accepted"
	}
	if failed != "" && o.failed == "" {
		o.failed = fmt.Sprintf("verifier %s: %s", r.Verifier, failed)
	}
}

// anonymous returns words on one line and without what differs from run to run: the
// token, its kid and the server's port.
func anonymous(words string, r request) string {
	words = strings.NewReplacer(r.Token, "TOKEN", r.Issuer, "ISSUER", testkit.KeyID(r.Token), "KID").Replace(words)
	return strings.Join(strings.Fields(words), " ")
}

// breakSignature changes one bit in the middle of a token's signature.
func breakSignature(token string) string {
	dot := strings.LastIndexByte(token, '.') + 1
	signature := must(base64.RawURLEncoding.DecodeString(token[dot:]))
	signature[len(signature)/2] ^= 1
	return token[:dot] + base64.RawURLEncoding.EncodeToString(signature)
}
