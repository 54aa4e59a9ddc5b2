package fleetkey

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/refresh"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// Verify verifies an access token and returns its claims. If a check fails, the token is
// nil and the error says which one failed and matches one of the sentinels ([ErrExpired],
// [ErrUnknownKey], ...).
//
// The checks and their order follow RFC 8725 and RFC 9068 section 4: size and form, header,
// kid, typ, alg (determined by the key, not by the token), signature, presence of the
// required claims, and then exp, iat, nbf, lifetime, iss and aud. Verify never fetches a URL
// that a token contains. No check can be turned off.
//
// Verify works from memory, with one exception: a token that has an unknown kid but
// otherwise looks like one of this issuer makes it load the keys, at most once in 10
// seconds. It waits for at most 3 seconds, or until ctx ends. If that load fails, the token
// may be valid, and the error matches [ErrUnavailable] as well as [ErrUnknownKey].
func (v *Verifier) Verify(ctx context.Context, token string) (*Token, error) {
	now := v.clock.Now()
	if v.maxStale > 0 {
		err := v.tooStale(now)
		if err != nil && v.refresh.Look(ctx) == nil { // no timer fired while the machine was suspended
			now = v.clock.Now()
			err = v.tooStale(now)
		}
		if err != nil {
			v.counters.reject(err)
			return nil, fmt.Errorf("fleetkey: %w", err)
		}
	}
	if t, ok := v.current.Load().cache.Find(token, now); ok {
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
	if err != nil && !ask && errors.Is(err, ErrUnknownKey) {
		err = v.withoutKeys(err)
	}
	if ask {
		if err = v.look(ctx, parts, err); err == nil {
			current, now = v.current.Load(), v.clock.Now()
			k, _, err = current.KeyFor(parts.Header, now)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := parts.Verify(k.Alg, k.Public); err != nil {
		return nil, fmt.Errorf("%w: key %q", err, k.ID)
	}
	t := &Token{keyID: k.ID}
	if err := parts.Read(&t.claims); err != nil {
		return nil, err
	}
	if !k.IssuedBefore.IsZero() && t.claims.IssuedAt.After(k.IssuedBefore) {
		return nil, issuedTooLate(k)
	}
	if err := v.rules.Check(&t.claims, k.Former, k.Issuer, now); err != nil {
		return nil, err
	}
	if k.Former {
		setDefault(&t.claims.Scope, t.claims.FormerScope)
		setDefault(&t.claims.ClientID, t.claims.FormerClient)
	}
	from, until := v.rules.Validity(&t.claims)
	if !k.Until.IsZero() && k.Until.Before(until) {
		until = k.Until
	}
	current.cache.Add(token, t, t.size(), from, until, now)
	return t, nil
}

// look loads the keys because a token's key is unknown. It returns nil if the caller should
// look the key up again. Anyone could send made-up kids, so a token that would be rejected
// with any key causes no load.
func (v *Verifier) look(ctx context.Context, parts jws.Parts, unknown error) error {
	var claims jws.Claims
	err := parts.Read(&claims)
	_, until := v.rules.Validity(&claims)
	if err != nil || claims.Issuer != v.rules.Issuer || !v.clock.Now().Before(until) {
		return v.withoutKeys(unknown)
	}
	if v.jwks != nil {
		v.jwks.AskForAll()
	}
	err = v.refresh.Look(ctx)
	if errors.Is(err, refresh.ErrTooSoon) {
		if err = v.refresh.State().Err; err == nil {
			return unknown
		}
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, refresh.ErrRefused) || errors.Is(err, refresh.ErrClosed) {
		return v.withoutKeys(unknown)
	}
	return fmt.Errorf("%w; the token has an %w", unavailable(err), unknown)
}

// withoutKeys returns why a key is unknown. Before the first keys are loaded, no key can be
// ruled out.
func (v *Verifier) withoutKeys(unknown error) error {
	if loads := v.refresh.State(); loads.LastGood.IsZero() && loads.Err != nil {
		return fmt.Errorf("%w; the token has an %w", unavailable(loads.Err), unknown)
	}
	return unknown
}

// unavailable marks an error of loading the keys.
func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// tooStale returns an error if the keys are too old to verify with. Keys that were never
// loaded have no age.
func (v *Verifier) tooStale(now time.Time) error {
	if age := v.refresh.Age(now); age > v.maxStale && !v.refresh.State().LastGood.IsZero() {
		return fmt.Errorf("%w: the keys are %v old, more than MaxStale %v", ErrUnavailable, age.Round(time.Second), v.maxStale)
	}
	return nil
}

func issuedTooLate(k *trust.Key) error {
	return fmt.Errorf("%w: kid %q is trusted only for tokens issued before %s", ErrUnknownKey, k.ID, k.IssuedBefore.Format(time.RFC3339))
}

// Keyfunc returns the key of a token to golang-jwt, for code that uses jwt.Parse or similar
// functions. It uses only the keys in memory, and the token's alg must be the key's.
// golang-jwt checks only the claims that you configure. It does not check typ and crit, so
// it accepts an ID token as an access token. The key of a [Former] with another issuer is
// returned only for tokens of that issuer. Prefer Verify.
func (v *Verifier) Keyfunc(t *jwt.Token) (any, error) {
	now := v.clock.Now()
	if v.maxStale > 0 {
		if err := v.tooStale(now); err != nil {
			return nil, fmt.Errorf("fleetkey: %w", err)
		}
	}
	kid, _ := t.Header["kid"].(string)
	alg := ""
	if t.Method != nil {
		alg = t.Method.Alg()
	}
	k := v.current.Load().Find(kid, alg)
	if k == nil || !k.Trusted(now) {
		return nil, fmt.Errorf("fleetkey: %w", v.withoutKeys(fmt.Errorf("%w: kid %s", ErrUnknownKey, jws.Quote(kid)))) // of any length here
	}
	if alg != k.Alg.Name {
		return nil, fmt.Errorf("fleetkey: %w: the key's is %s", ErrWrongAlgorithm, k.Alg.Name)
	}
	if k.Issuer != "" { // the caller expects our issuer, if any, which this key must not sign for
		if iss, err := t.Claims.GetIssuer(); err != nil || iss != k.Issuer {
			return nil, fmt.Errorf("fleetkey: %w: %s", ErrWrongIssuer, jws.Quote(iss))
		}
	}
	if !k.IssuedBefore.IsZero() {
		if iat, err := t.Claims.GetIssuedAt(); err != nil || iat == nil || iat.After(k.IssuedBefore) {
			return nil, fmt.Errorf("fleetkey: %w", issuedTooLate(k))
		}
	}
	return k.Public, nil
}
