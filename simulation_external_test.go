package fleetkey_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
)

const simIssuer = "https://id.example.com"

var errUnknownToCache = errors.New("kid is not in the cached JWKS")

// A simExternal is a resource server of somebody else: golang-jwt over a copy of
// the JWKS that is fetched anew when it is as old as max-age allows, and never
// before. It is the verifier that rotation has to wait for.
type simExternal struct {
	f      *simFleet
	parser *jwt.Parser
	keys   map[string]any // by kid
	source *simInstance   // where they came from
	cut    time.Time      // what that knew then
	loaded time.Time
	start  time.Time
}

func newExternals(f *simFleet) []*simExternal {
	var all []*simExternal
	for i := range f.sc.externals {
		offset := f.sc.clocks * time.Duration(i%3-1) // slow, right or fast
		x := &simExternal{f: f, parser: jwt.NewParser(
			jwt.WithIssuer(simIssuer), jwt.WithAudience(simIssuer), jwt.WithExpirationRequired(),
			jwt.WithValidMethods([]string{"ES256", "EdDSA"}), jwt.WithLeeway(f.sc.policy.ClockSkew),
			jwt.WithTimeFunc(func() time.Time { return time.Now().Add(offset) }))}
		all = append(all, x)
		f.after(f.upTo(f.sc.maxAge()), x.fetch)
	}
	return all
}

// fetch gets the JWKS of an instance behind the load balancer, and will do so
// again after max-age.
func (x *simExternal) fetch() {
	f := x.f
	if time.Now().After(f.end) && f.events.Len() <= len(f.externals) {
		return // nothing is left but fetches
	}
	f.after(f.sc.maxAge(), x.fetch)
	in := f.pick()
	if in == nil {
		return
	}
	w := httptest.NewRecorder()
	in.signer.Load().JWKS().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	etag := w.Header().Get("ETag")
	keys, ok := f.keySets[etag]
	if !ok {
		var document jose.JSONWebKeySet
		if err := json.Unmarshal(w.Body.Bytes(), &document); err != nil || w.Code != 200 {
			f.model.fault("JWKS answers %d: %v", w.Code, err)
			return
		}
		keys = map[string]any{}
		for _, k := range document.Keys {
			keys[k.KeyID] = k.Key
		}
		f.keySets[etag] = keys
	}
	s := in.state("")
	x.keys, x.source, x.cut, x.loaded, x.start = keys, in, s.cut, s.loaded, s.started
}

func (x *simExternal) verify(tok *simToken) {
	keys, source, begin := x.keys, x.source, time.Now()
	if source == nil {
		return
	}
	who := simState{loaded: x.loaded, started: x.start, cut: x.cut}
	if _, ok := keys[tok.key.kid]; ok {
		who.knows = x.loaded
	}
	x.f.running.Go(func() {
		_, err := x.parser.Parse(tok.raw, func(t *jwt.Token) (any, error) {
			if key, ok := keys[fmt.Sprint(t.Header["kid"])]; ok {
				return key, nil
			}
			return nil, errUnknownToCache
		})
		revoked := x.f.model.revokedAt(tok.key)
		x.f.model.checked("external", tok, begin, who, !revoked.IsZero() && source.reached(revoked), err)
	})
}
