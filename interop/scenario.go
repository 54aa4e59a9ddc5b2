package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// This file is the story that every client is taken through, once for each
// algorithm: a key is replaced, and later its successor is stolen.

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

// title and meaning of the phases, as the table shows them.
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

// A want is how a check should end.
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

// row is a line of the table.
type row struct {
	about
	algorithm string
	outcomes  [phases]outcome
	notRun    string // why the client could not be started
}

// A stage is what a scenario needs: clients, a fleet, and where the outcomes go.
type stage struct {
	*fleet
	algorithm string
	clients   []client
	rows      []*row // of the clients
	err       error  // the first of the fleet's
}

// play takes all clients through the story with one algorithm. An error is the
// server's; what clients do wrong is in the rows.
func play(ctx context.Context, url string, mux *http.ServeMux, algorithm string, clients []client) (rows []*row, err error) {
	path := "/" + algorithm
	f, err := newFleet(ctx, url+path, algorithm)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	f.serve(mux, path)
	s := &stage{fleet: f, algorithm: algorithm, clients: clients}
	for _, c := range clients {
		s.rows = append(s.rows, &row{about: c.about(), algorithm: algorithm})
	}
	if err := s.rotation(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", algorithm, err)
	}
	return s.rows, nil
}

// The verifiers, by when they are made.
const (
	early = "made before"
	late  = "made when announced"
	mid   = "made when activated"
	after = "made when retired"
	last  = "made when revoked"
)

func (s *stage) rotation(ctx context.Context) error {
	oldToken, oldKey := s.token(ctx)
	s.check(ctx, before, early, oldToken, accept)

	s.do(s.rotate(ctx))
	announcedKeys := s.kids()
	oldToken, kid := s.token(ctx)
	s.expect(kid == oldKey && len(announcedKeys) == 2, "the successor has to be announced and not sign")
	s.check(ctx, announced, early, oldToken, accept)
	s.check(ctx, announced, late, oldToken, accept)

	s.do(s.advance(ctx, 24*time.Hour+2*time.Second)) // Rotation.Announce
	newToken, newKey := s.token(ctx)
	s.expect(newKey != oldKey && slices.Contains(announcedKeys, newKey), "the successor has to sign")
	s.unreachable.Store(true)
	s.check(ctx, activated, late, newToken, accept)
	s.check(ctx, activated, late, oldToken, accept)
	s.unreachable.Store(false)
	s.check(ctx, activated, mid, newToken, accept)
	s.check(ctx, activated, mid, oldToken, accept)

	s.do(s.advance(ctx, 24*time.Hour)) // Rotation.Retain
	newToken, _ = s.token(ctx)
	s.expect(slices.Equal(s.kids(), []string{newKey}), "the old key has to leave the JWKS")
	s.check(ctx, retired, late, newToken, accept)
	s.check(ctx, retired, after, newToken, accept)
	s.check(ctx, brokenSignature, after, breakSignature(newToken), refuse)
	s.check(ctx, keyGone, after, oldToken, refuse)

	s.do(s.revoke(ctx, newKey))
	freshToken, freshKey := s.token(ctx)
	s.expect(freshKey != newKey && slices.Equal(s.kids(), []string{freshKey}), "a fresh key has to stand in for the revoked one")
	s.check(ctx, revoked, last, freshToken, accept)
	s.check(ctx, revoked, last, newToken, refuse)
	s.check(ctx, replaced, late, freshToken, either)
	return s.err
}

func (s *stage) do(err error) {
	if s.err == nil {
		s.err = err
	}
}

// expect guards the test itself: without these the table would mean nothing.
func (s *stage) expect(ok bool, what string) {
	if !ok {
		s.do(errors.New(what))
	}
}

func (s *stage) token(ctx context.Context) (token, kid string) {
	token, kid, err := s.issue(ctx)
	s.do(err)
	return token, kid
}

func (s *stage) kids() []string {
	kids, err := s.published()
	s.do(err)
	return kids
}

// check shows a token to a verifier of every client, and notes the outcome. A
// client that lacks the algorithm is asked in the first phase only, and has to
// refuse.
func (s *stage) check(ctx context.Context, p phase, verifier, token string, w want) {
	if s.err != nil {
		return
	}
	for i, c := range s.clients {
		supported := c.about().supports(s.algorithm)
		if !supported && p != before {
			continue
		}
		o := &s.rows[i].outcomes[p]
		ctx, cancel := context.WithTimeout(ctx, clientTimeout)
		got, err := c.verify(ctx, request{Verifier: verifier, Issuer: s.issuer, Audience: audience, Algorithm: s.algorithm, Token: token})
		cancel()
		var broken brokenError
		if errors.As(err, &broken) {
			o.ran, o.failed = true, err.Error()
			continue
		}
		o.note(got, s.anonymous(err, token), w, supported, verifier)
	}
}

func (o *outcome) note(got, words string, w want, supported bool, verifier string) {
	fail := func(what string) {
		if o.failed == "" {
			o.failed = fmt.Sprintf("verifier %s: %s", verifier, what)
		}
	}
	o.ran, o.accepted = true, words == ""
	if words != "" {
		o.words = words
	}
	switch {
	case words == "" && got != subject:
		fail(fmt.Sprintf("accepted, but with sub %q", got))
	case !supported && o.accepted:
		fail("accepted, although listed as not supported")
	case supported && w == accept && !o.accepted:
		fail("refused: " + words)
	case w == refuse && o.accepted:
		fail("accepted")
	}
}

// anonymous returns an error's words, on one line and without what differs from
// run to run: the token, its kid and the server's port.
func (s *stage) anonymous(err error, token string) string {
	if err == nil {
		return ""
	}
	words := strings.ReplaceAll(err.Error(), token, "TOKEN")
	words = strings.ReplaceAll(words, s.issuer, "ISSUER")
	if kid := keyID(token); kid != "" {
		words = strings.ReplaceAll(words, kid, "KID")
	}
	return strings.Join(strings.Fields(words), " ")
}

// keyID returns the kid in a token's header, or "".
func keyID(token string) string {
	header, _, _ := strings.Cut(token, ".")
	var h struct{ Kid string }
	data, err := base64.RawURLEncoding.DecodeString(header)
	if err != nil || json.Unmarshal(data, &h) != nil {
		return ""
	}
	return h.Kid
}

// breakSignature changes one bit in the middle of a token's signature.
func breakSignature(token string) string {
	dot := strings.LastIndexByte(token, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(token[dot:])
	if err != nil {
		panic(err) // fleetkey's own
	}
	signature[len(signature)/2] ^= 1
	return token[:dot] + base64.RawURLEncoding.EncodeToString(signature)
}
