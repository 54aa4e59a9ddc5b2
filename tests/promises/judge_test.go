package promises

import (
	"context"
	"encoding/json"
	"errors"
	"net/http/httptest"
	"slices"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// check makes every running instance sign, verify and publish, and judges the results.
func (f *fleet) check(n int) {
	synctest.Wait()
	for _, in := range f.running() {
		in.checkIssue(n)
		in.checkPublished()
	}
	for i, in := range f.running() {
		for _, tok := range f.tokens {
			in.checkToken(tok, n%4 == i)
		}
		in.checkRevoked(n)
		in.checkFormers(n)
		in.checkAdopted()
	}
	perKey := map[string]int{}
	for _, tok := range slices.Backward(f.tokens) {
		perKey[tok.kid]++
		tok.old = perKey[tok.kid] > 4 || time.Now().After(tok.exp.Add(10*time.Minute))
	}
	f.tokens = slices.DeleteFunc(f.tokens, func(tok *token) bool { return tok.old })
	synctest.Wait() // for what follows a load that was caused by a token
}

// checkIssue signs a token. That may fail only if the store was unreachable for too long, or
// no key can sign.
func (in *instance) checkIssue(n int) {
	f, now := in.machine.fleet, in.machine.Now()
	ttl := in.cfg.MaxTokenTTL
	if n%2 == 1 {
		ttl /= 4
	}
	raw, err := in.signer.Issue(context.Background(), fleetkey.Claims{Subject: "alice", ClientID: "web", ExpiresAt: now.Add(ttl)})
	status := in.signer.Status()
	w := httptest.NewRecorder()
	in.signer.Health().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if (w.Code == 200) != (err == nil) {
		f.breaks("P4", "Health answers %d, and Issue %v", w.Code, err)
	}
	stale := in.mayBeStale(now)
	in.mu.Lock()
	defer in.mu.Unlock()
	key, early := signing(in.set, now)
	if err == nil {
		tok := &token{raw: raw, kid: testkit.KeyID(raw), iat: now, exp: now.Add(ttl), ttl: ttl}
		f.tokens = append(f.tokens, tok)
		if in.revoked[tok.kid] {
			f.breaks("P2", "the revoked key %s signs", tok.kid)
		}
		if !in.doubt && (key == nil || key.ID != tok.kid) {
			f.breaks("P3", "the key %s signs, and not %v", tok.kid, key)
		}
	}
	if in.doubt || key == nil {
		return
	}
	ends := key.NotAfter.Sub(now) < in.cfg.MaxTokenTTL+2*in.cfg.ClockSkew+time.Second
	if err != nil && !ends && !(errors.Is(err, fleetkey.ErrStale) && stale) {
		f.breaks("P3, P4, P6", "the key %s could sign, but: %v", key.ID, err)
	}
	warned := len(status.Warnings()) > 0 || err != nil
	if early && !warned {
		f.breaks("P4", "no warning that %s signs early", key.ID)
	}
	r := in.cfg.Rotation
	overdue := r.Every > 0 && now.Sub(key.NotBefore) > r.Every-r.Announce+3*in.cfg.RefreshEvery && !slices.ContainsFunc(in.set.Pairs, func(p pair) bool { return p.NotBefore.After(now) })
	if overdue && !warned {
		f.breaks("P4", "no warning that a rotation is overdue")
	}
}

// checkPublished reads the JWKS: a kid always names the same key, on every instance.
func (in *instance) checkPublished() {
	f, w := in.machine.fleet, httptest.NewRecorder()
	r := httptest.NewRequest("GET", fleetkey.JWKSPath, nil)
	r.Header.Set("Range", "bytes=0-0,0-0")
	in.signer.JWKS().ServeHTTP(w, r)
	if w.Code == 503 {
		return
	}
	if w.Code != 200 || w.Body.Len() > 48<<10 {
		f.breaks("P8", "the JWKS answers %d with %d bytes", w.Code, w.Body.Len())
	}
	var set struct {
		Keys []struct{ Kid, Kty, Crv, N, X, Y, D string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil {
		f.breaks("P1", "the JWKS is not JSON: %v", err)
	}
	seen := map[string]bool{}
	for _, k := range set.Keys {
		public := k.Kty + k.Crv + k.N + k.X + k.Y
		if before, known := f.published[k.Kid]; seen[k.Kid] || known && before != public || k.D != "" {
			f.breaks("P1", "the kid %s is published twice or for two keys", k.Kid)
		}
		seen[k.Kid], f.published[k.Kid] = true, public
		if f.key(k.Kid) != nil && in.knowsRevoked(k.Kid) { // a name of a former key can look like a thumbprint
			f.breaks("P2", "the revoked key %s is published", k.Kid)
		}
		for i, other := range f.formers {
			if slices.Contains(other.names, k.Kid) && slices.Contains(in.formers, i) && in.knowsRevoked(testkit.Thumbprint(other.private.Public())) {
				f.breaks("P2", "the revoked key %s of another system is published", k.Kid)
			}
		}
	}
	for _, k := range in.signer.PublicKeys() {
		seen[k.KeyID] = true
	}
	if seen["other"] {
		f.breaks("P1", "a key of another issuer is published")
	}
	if own := in.machine.own.ID; seen[own] && !in.hasSeen(own) {
		f.breaks("P5a", "an adopted key is published")
	}
}

// checkToken verifies a token of the fleet.
func (in *instance) checkToken(tok *token, look bool) {
	f, now, revoked := in.machine.fleet, in.machine.Now(), in.knowsRevoked(tok.kid)
	trusted := in.trusts(tok.kid, now)
	if !trusted && !look { // Verify would read the store, which should not happen all the time
		return
	}
	err := in.verify(tok.raw)
	switch skew := in.cfg.ClockSkew; {
	case err == nil && revoked:
		f.breaks("P2", "a token of the revoked key %s is accepted", tok.kid)
	case err == nil && now.After(tok.exp.Add(skew+time.Second)):
		f.breaks("expiry", "a token is accepted %v after its end", now.Sub(tok.exp))
	case err == nil || revoked:
	case trusted && now.Before(tok.exp.Add(-time.Second)) && !tok.iat.After(now.Add(2*skew)) && tok.ttl <= in.cfg.MaxTokenTTL:
		f.breaks("valid tokens", "the token of %s is refused by an instance that trusts the key: %v", tok.kid, err)
	}
}

func (in *instance) verify(raw string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := in.signer.Verify(ctx, raw)
	if byKey := in.keyfunc(raw); err == nil && byKey != nil {
		in.machine.fleet.breaks("P1", "Verify accepts a token whose key golang-jwt does not get: %v", byKey)
	}
	synctest.Wait() // a load that Verify did not wait for can end at this moment
	return err
}

// keyfunc asks for the key of a token as golang-jwt does.
func (in *instance) keyfunc(raw string) error {
	token, _, err := jwt.NewParser().ParseUnverified(raw, jwt.MapClaims{})
	if err == nil {
		_, err = in.signer.Keyfunc(token)
	}
	return err
}

func (in *instance) hasSeen(kid string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.seen[kid]
}

// checkRevoked acts as a thief with all private keys that the store has ever held.
func (in *instance) checkRevoked(n int) {
	f := in.machine.fleet
	for i, p := range f.stolen() {
		kid := p.ID
		if !in.knowsRevoked(kid) {
			continue
		}
		if _, err := in.signer.Keyfunc(&jwt.Token{Header: map[string]any{"kid": kid}, Method: testkit.Method(p.Private)}); err == nil {
			f.breaks("P2", "the revoked key %s is trusted", kid)
		}
		if (n+i)%8 == 0 && in.verify(testkit.Forge(p.Private, kid, "at+jwt", in.machine.Now())) == nil {
			f.breaks("P2", "a forged token of the revoked key %s is accepted", kid)
		}
	}
}

// checkFormers verifies tokens of the other systems, under one of their names.
func (in *instance) checkFormers(n int) {
	f, now := in.machine.fleet, in.machine.Now()
	for _, i := range in.formers {
		other := f.formers[i]
		name, id := other.names[n%len(other.names)], testkit.Thumbprint(other.private.Public())
		revoked := in.knowsRevoked(id)
		err := in.verify(testkit.Forge(other.private, name, "JWT", now, "iss", other.issuer))
		if revoked && err == nil {
			f.breaks("P2", "a token of the revoked key %s is accepted under its name %s", id, name)
		}
		if !revoked && err != nil && !in.knowsRevoked(id) {
			f.breaks("P1", "a token under the name %s of another system is refused: %v", name, err)
		}
		if other.issuer == testkit.Issuer {
			continue
		}
		if ours := testkit.Forge(other.private, name, "JWT", now); in.verify(ours) == nil || in.keyfunc(ours) == nil {
			f.breaks("P1", "the key of another issuer signs for ours")
		}
	}
}

// checkAdopted verifies tokens of the machine's former key: tokens issued before it joined
// the fleet are good, and later ones are not.
func (in *instance) checkAdopted() {
	m, now := in.machine, in.machine.Now()
	if in.cfg.Adopt == nil || in.hasSeen(m.own.ID) {
		return
	}
	revoked := in.knowsRevoked(m.own.ID)
	if iat := m.since.Add(-time.Minute); iat.Unix() > 0 && now.Sub(iat) < 9*time.Minute && !now.Before(iat) && !revoked {
		if err := in.verify(testkit.Forge(m.own.Private, m.own.ID, "at+jwt", iat)); err != nil && !in.hasSeen(m.own.ID) {
			m.fleet.breaks("P5a", "an instance refuses a token that it issued before it joined the fleet: %v", err)
		}
	}
	later := testkit.Forge(m.own.Private, m.own.ID, "at+jwt", now)
	if now.Sub(m.since) > 2*time.Second && (in.verify(later) == nil || in.keyfunc(later) == nil) && !in.hasSeen(m.own.ID) {
		m.fleet.breaks("P5a", "a token that was signed later with an adopted key is accepted")
	}
}
