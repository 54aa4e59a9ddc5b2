package simulation

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

var errNotCached = errors.New("not in the cached JWKS")

// An external is a third-party resource server: golang-jwt with a copy of the JWKS, which it
// fetches again when that is as old as max-age allows, and never earlier. Rotation must wait
// for this kind of verifier.
type external struct {
	f      *fleet
	parser *jwt.Parser
	keys   map[string]any // by kid
	source *instance      // where they came from
	knew   knowledge      // what source knew then
}

func newExternals(f *fleet) []*external {
	var all []*external
	for i := range f.sc.externals {
		offset := f.sc.clocks * time.Duration(i%3-1) // slow, right or fast
		x := &external{f: f, parser: jwt.NewParser(
			jwt.WithIssuer(testkit.Issuer), jwt.WithAudience(testkit.Issuer), jwt.WithExpirationRequired(),
			jwt.WithValidMethods([]string{"ES256", "EdDSA"}), jwt.WithLeeway(f.sc.policy.ClockSkew), jwt.WithTimeFunc(testkit.Off(offset)))}
		all = append(all, x)
		f.after(f.upTo(f.sc.policy.JWKSMaxAge), x.fetch)
	}
	return all
}

// fetch gets the JWKS of an instance behind the load balancer, and schedules the next fetch
// after max-age.
func (x *external) fetch() {
	f := x.f
	f.after(cmp.Or(f.sc.cached, f.sc.policy.JWKSMaxAge), x.fetch)
	in := f.pick()
	if in == nil {
		return
	}
	w := httptest.NewRecorder()
	in.signer.Load().JWKS().ServeHTTP(w, f.getJWKS)
	etag := w.Header().Get("ETag")
	keys, ok := f.keySets[etag]
	if !ok {
		var document jose.JSONWebKeySet
		if err := json.Unmarshal(w.Body.Bytes(), &document); err != nil || w.Code != 200 {
			f.t.Errorf("JWKS answers %d: %v", w.Code, err)
			return
		}
		keys = map[string]any{}
		for _, k := range document.Keys {
			keys[k.KeyID] = k.Key
		}
		f.keySets[etag] = keys
	}
	x.keys, x.source, x.knew = keys, in, in.state("")
}

func (x *external) verify(tok *token) {
	if x.source == nil {
		return
	}
	who, begin := x.knew, time.Now()
	if _, ok := x.keys[tok.key.id]; ok {
		who.knows = who.loaded
	}
	_, err := x.parser.Parse(tok.raw, func(t *jwt.Token) (any, error) {
		if key, ok := x.keys[fmt.Sprint(t.Header["kid"])]; ok {
			return key, nil
		}
		return nil, errNotCached
	})
	x.f.model.checked("external", tok, begin, who, x.source, err)
}

// issue makes an instance sign a token, and schedules the checks of it.
func (f *fleet) issue(in *instance, thorough bool) {
	s := in.awake()
	if s == nil {
		return
	}
	lifetime := in.policy.MaxTokenTTL
	if f.chance(0.3) {
		lifetime = max(time.Minute, f.upTo(lifetime))
	}
	iat := time.Now().Add(in.offset)
	exp := iat.Add(lifetime)
	raw, err := s.Issue(context.Background(), fleetkey.Claims{Subject: "someone", ClientID: "web", IssuedAt: iat, ExpiresAt: exp})
	if err != nil {
		f.model.refused(in, err)
		return
	}
	f.checkLater(f.model.issued(in, raw, exp.Truncate(time.Second)), thorough)
}

// checkLater schedules the checks of a token.
func (f *fleet) checkLater(tok *token, thorough bool) {
	late := f.sc.policy.ClockSkew
	for _, at := range []time.Time{
		tok.at,
		f.between(tok.at, tok.exp),
		f.between(tok.exp.Add(-late), tok.exp),
		tok.exp.Add(-1 - f.upTo(3*time.Second)),
		tok.exp.Add(2*late + f.upTo(time.Hour)),
	} {
		if thorough || f.chance(0.5) {
			f.at(at, func() { f.verify(f.pick(), tok) })
		}
		if f.chance(0.4) {
			f.at(at, func() { f.externals[f.rng.IntN(len(f.externals))].verify(tok) })
		}
	}
}

// verify makes an instance check a token. It does so in a goroutine, because an unknown kid
// makes it wait for the store.
func (f *fleet) verify(in *instance, tok *token) {
	s := in.awake()
	if s == nil {
		return
	}
	begin, who := time.Now(), in.state(tok.key.id)
	f.running.Go(func() {
		_, err := s.Verify(context.Background(), tok.raw)
		if in.awake() != s {
			return // suspended or stopped before it could answer
		}
		f.model.checked("instance", tok, begin, who, in, err)
	})
}
