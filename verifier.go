package fleetkey

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/refresh"
	"github.com/fleetkey/fleetkey/internal/tokencache"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// A Verifier verifies access tokens with the public keys that it holds in memory. It
// cannot sign. [Signer.Verifier] returns one, for handlers that only verify.
//
// All methods may be called at the same time.
type Verifier struct {
	source       string // how the store of the keys names itself
	rules        jws.Rules
	others       []*trust.Key // from the configuration: former systems' keys and adopted ones
	policy       keyset.Policy
	cachedTokens int
	clock        clock.Clock
	logger       *slog.Logger

	current  atomic.Pointer[view]
	refresh  *refresh.Refresher
	counters counters
}

// A view is what an instance knows at one moment. A changed key set starts an empty
// cache of tokens.
type view struct {
	*trust.View
	cache *tokencache.Cache[*Token]
}

// newVerifier returns the verifying half of a Signer, which then fills the first view
// and starts the refresher.
func newVerifier(ctx context.Context, store KeyStore, cfg *Config) *Verifier {
	return &Verifier{
		source: storeName(store),
		rules:  jws.Rules{Issuer: cfg.Issuer, Audience: cfg.Audience, MaxTokenTTL: cfg.MaxTokenTTL, ClockSkew: cfg.ClockSkew},
		policy: cfg.policy(), cachedTokens: cfg.CachedTokens, clock: clock.From(ctx), logger: cfg.Logger,
	}
}

// Verify checks an access token and returns what it says. The error says which check
// failed and matches one of the sentinels ([ErrExpired], [ErrUnknownKey], ...); the
// token is then nil.
//
// The checks and their order follow RFC 8725 and RFC 9068 section 4: form and size,
// header, typ, kid, alg (given by the key, not by the token), signature, and only then
// the claims: exp, iat, nbf, lifetime, iss, aud and sub. Verify never fetches a URL
// from a token. The algorithm and the strictness cannot be configured.
//
// Verify works from memory. Only a token with an unknown kid makes it load the keys
// again, at most once in 10 seconds; ctx bounds the wait.
func (v *Verifier) Verify(ctx context.Context, token string) (*Token, error) {
	if t, ok := v.current.Load().cache.Find(token, v.clock.Now()); ok {
		v.counters.cacheHits.Add(1)
		return t, nil
	}
	t, err := v.verify(ctx, token)
	if err != nil {
		v.counters.reject(err)
		return nil, fmt.Errorf("fleetkey: %w", err)
	}
	v.counters.accepted.Add(1)
	return t, nil
}

// verify checks a token that is not in the cache.
func (v *Verifier) verify(ctx context.Context, token string) (*Token, error) {
	parts, err := jws.Split(token)
	if err != nil {
		return nil, err
	}
	current, now := v.current.Load(), v.clock.Now()
	k, ask, err := current.KeyFor(parts.Header, now)
	if ask && v.refresh.Look(ctx) {
		current, now = v.current.Load(), v.clock.Now()
		k, _, err = current.KeyFor(parts.Header, now)
	}
	if err != nil {
		return nil, err
	}
	if err := parts.Verify(k.Alg, k.Public); err != nil {
		return nil, fmt.Errorf("%w: key %s", err, k.ID)
	}
	t := &Token{keyID: k.ID}
	if err := parts.Read(&t.claims); err != nil {
		return nil, err
	}
	if !k.IssuedBefore.IsZero() && t.claims.IssuedAt.After(k.IssuedBefore) {
		return nil, fmt.Errorf("%w: kid %q is trusted for tokens issued until %s", ErrUnknownKey, k.ID, k.IssuedBefore.Format(time.RFC3339))
	}
	if err := v.rules.Check(&t.claims, k.Former, k.Issuer, now); err != nil {
		return nil, err
	}
	if k.Former && t.claims.Scope == "" {
		t.claims.Scope = t.claims.FormerScope
	}
	from, until := v.rules.Validity(&t.claims)
	if !k.Until.IsZero() && k.Until.Before(until) {
		until = k.Until
	}
	current.cache.Add(token, t, t.size(), from, until, now)
	return t, nil
}

// Keyfunc gives golang-jwt the key of a token, for code that parses with jwt.Parse and
// similar functions. It only knows the keys in memory. The token's alg must be the
// key's; golang-jwt checks the claims that it is told to check, but neither typ nor
// crit: it accepts an ID token as an access token. A key of a [Former] with another
// issuer is given for tokens of that issuer only. Prefer Verify.
func (v *Verifier) Keyfunc(t *jwt.Token) (any, error) {
	kid, _ := t.Header["kid"].(string)
	k := v.current.Load().ByName(kid)
	if k == nil || !k.Trusted(v.clock.Now()) {
		return nil, fmt.Errorf("fleetkey: %w: kid %s", ErrUnknownKey, jws.Quote(kid)) // of any length here
	}
	if t.Method.Alg() != k.Alg.Name {
		return nil, fmt.Errorf("fleetkey: %w: the key's is %s", ErrWrongAlgorithm, k.Alg.Name)
	}
	if k.Issuer != "" { // the caller checks for ours, if for any, and this key must not vouch for that
		if iss, err := t.Claims.GetIssuer(); err != nil || iss != k.Issuer {
			return nil, fmt.Errorf("fleetkey: %w: %s", ErrWrongIssuer, jws.Quote(iss))
		}
	}
	if !k.IssuedBefore.IsZero() {
		if iat, err := t.Claims.GetIssuedAt(); err != nil || iat == nil || iat.After(k.IssuedBefore) {
			return nil, fmt.Errorf("fleetkey: %w: kid %q is trusted for tokens issued until %s", ErrUnknownKey, k.ID, k.IssuedBefore.Format(time.RFC3339))
		}
	}
	return k.Public, nil
}

// A PublicKey verifies tokens.
type PublicKey struct {
	KeyID       string
	Algorithm   string           // JOSE name, such as RS256
	Key         crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	Certificate *x509.Certificate
}

// PublicKeys returns the keys that JWKS serves and that are trusted now, including those
// announced and those replaced, each under one kid. A key of a [Former] with another
// issuer is left out: whoever takes it for ours lets it sign tokens with our issuer.
func (v *Verifier) PublicKeys() []PublicKey {
	now := v.clock.Now()
	var keys []PublicKey
	for _, k := range v.current.Load().Keys {
		if k.Trusted(now) && !k.Hidden {
			keys = append(keys, PublicKey{KeyID: k.ID, Algorithm: k.Alg.Name, Key: k.Public, Certificate: k.Cert})
		}
	}
	return keys
}

// Refresh loads the keys now, instead of within RefreshEvery. On failure the keys stay
// as they are, and the error says why.
func (v *Verifier) Refresh(ctx context.Context) error {
	if err := v.refresh.Refresh(ctx); err != nil {
		return fmt.Errorf("fleetkey: refresh: %w", err)
	}
	return nil
}

// Close does nothing: the Signer that the Verifier belongs to ends the refresh of the
// keys.
func (v *Verifier) Close() error { return nil }

// Format prints where the keys come from, for every verb. The fields are left out,
// since they change while fmt would read them.
func (v *Verifier) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "verifier with the keys of %s", v.source)
}

func (v *Verifier) moment() trust.Moment {
	return trust.Moment{Wall: v.clock.Now(), Monotonic: v.clock.Monotonic()}
}

// adopt makes a key set the one that this instance works with.
func (v *Verifier) adopt(set *keyset.Set, version Version) error {
	old := v.current.Load()
	var before *trust.View
	if old != nil {
		before = old.View
	}
	next, err := trust.New(trust.Source{Set: set, Version: string(version), Others: v.others}, before, v.moment(), &v.policy)
	if err != nil {
		return err
	}
	v.current.Store(&view{next, tokencache.New[*Token](v.cachedTokens)})
	if old == nil || old.Version != next.Version {
		v.logAdopted(old, next)
	}
	return nil
}

// logAdopted logs what changed with a newly adopted set. It names the certificates'
// thumbprints beside the kids, so that an exchanged certificate of a known key is seen.
func (v *Verifier) logAdopted(old *view, next *trust.View) {
	var kids, certificates, kept []string
	for _, k := range next.Keys {
		kids = append(kids, k.ID)
		if k.Cert != nil {
			certificates = append(certificates, fmt.Sprintf("%x", sha256.Sum256(k.Cert.Raw)))
		}
		if k.Kept {
			kept = append(kept, k.ID)
		}
	}
	keys := []any{"store", v.source, "version", next.Version, "kids", kids, "certificates", certificates}
	if old == nil {
		v.logger.Info("loaded the signing keys", keys...)
		return
	}
	v.logger.Info("the store holds another key set, adopted it", append(keys, "old_version", old.Version)...)
	if len(kept) > 0 {
		v.logger.Warn("keys have vanished from the store without being revoked; their tokens are accepted until they expire",
			"store", v.source, "version", next.Version, "kids", kept)
	}
}

// report logs the result of a load.
func (v *Verifier) report(before, after refresh.State, wait time.Duration) {
	if after.Err == nil {
		if before.Err != nil {
			v.logger.Info("the signing keys can be read again", "store", v.source, "failures", before.Failures)
		}
		return
	}
	hint := ""
	if errors.Is(after.Err, ErrNotExist) {
		hint = "the bundle was deleted; a running instance never creates a new one"
	}
	v.logger.Error("cannot refresh the signing keys, continuing with the last good ones", "store", v.source,
		"failures", after.Failures, "last_good", after.LastGood, "retry_in", wait, "hint", hint, "err", after.Err)
}
