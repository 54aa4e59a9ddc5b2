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

	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/internal/jwks"
	"github.com/fleetkey/fleetkey/internal/jws"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/refresh"
	"github.com/fleetkey/fleetkey/internal/tokencache"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// A Verifier verifies access tokens with public keys in memory. It cannot sign.
// [NewVerifier] returns one that needs only the issuer's address, and [Signer.Verifier] one
// that shares the Signer's keys.
//
// All methods are safe for concurrent use.
type Verifier struct {
	source       string // of the keys: the name of their store, or their issuer
	rules        jws.Rules
	others       []*trust.Key // configured keys: those of former systems, and adopted ones
	policy       keyset.Policy
	cachedTokens int
	maxStale     time.Duration // 0: no limit
	clock        clock.Clock
	logger       *slog.Logger

	jwks    *jwks.Source  // nil: the keys come from a Signer's store
	told    time.Duration // when a failed load was last logged, by the monotonic clock
	skipped atomic.Pointer[map[string]int]

	current  atomic.Pointer[view]
	refresh  *refresh.Refresher
	counters counters
}

// A view is what an instance knows at one moment. A changed key set starts with an empty
// token cache.
type view struct {
	*trust.View
	cache *tokencache.Cache[*Token]
}

// NewVerifier fetches the keys of an issuer and keeps them fresh until Close.
//
// It tries once, for at most 10 seconds or until ctx ends. Only an invalid configuration
// and a discovery document of another issuer are errors. If the issuer cannot be reached,
// the Verifier keeps trying in the background; until it has keys, Verify returns
// [ErrUnavailable] and Health answers 503. Call Refresh if the program must not start
// without keys. Once NewVerifier has returned, ctx has no effect.
//
// After that, a successful fetch replaces the keys and a failed one leaves them in use. A
// Verifier serves one issuer. For several issuers, choose the Verifier by the token's
// unverified iss, as the example shows.
func NewVerifier(ctx context.Context, cfg VerifierConfig) (*Verifier, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("fleetkey: %w", err)
	}
	v := &Verifier{
		source:       "issuer " + cfg.Issuer,
		rules:        jws.Rules{Issuer: cfg.Issuer, Audience: cfg.Audience, MaxTokenTTL: cfg.MaxTokenTTL, FormerTTL: cfg.MaxTokenTTL, ClockSkew: cfg.ClockSkew},
		cachedTokens: cfg.CachedTokens, maxStale: cfg.MaxStale, clock: clock.From(ctx), logger: cfg.Logger,
	}
	v.jwks = jwks.New(jwks.Options{Issuer: cfg.Issuer, URL: cfg.JWKSURL, Former: cfg.Legacy, InsecureHTTP: cfg.InsecureHTTP, Client: cfg.HTTPClient, Clock: v.clock})
	none, err := trust.FromKeys(nil, "", cfg.Legacy, v.moment())
	if err != nil {
		return nil, fmt.Errorf("fleetkey: %w", err)
	}
	v.current.Store(&view{View: none})
	fresh, err := v.fetch(ctx)
	if errors.Is(err, jwks.ErrOtherIssuer) {
		v.jwks.Close()
		return nil, fmt.Errorf("fleetkey: %w", err)
	}
	if err != nil {
		v.report(refresh.State{}, refresh.State{Err: err, Failures: 1}, 0)
	}
	v.refresh = refresh.Start(refresh.Options{Every: cfg.RefreshEvery, Foreign: true, Clock: v.clock, Load: v.fetch, Report: v.report}, fresh, err)
	return v, nil
}

// newVerifier returns the Verifier of a Signer. The Signer then sets its first view and
// starts its refresher.
func newVerifier(ctx context.Context, store KeyStore, cfg *Config) *Verifier {
	return &Verifier{
		source: storeName(store),
		rules:  jws.Rules{Issuer: cfg.Issuer, Audience: cfg.Audience, MaxTokenTTL: cfg.MaxTokenTTL, ClockSkew: cfg.ClockSkew},
		policy: cfg.policy(), cachedTokens: cfg.CachedTokens, clock: clock.From(ctx), logger: cfg.Logger,
	}
}

// fetch loads the keys that the issuer publishes now.
func (v *Verifier) fetch(ctx context.Context) (next time.Duration, err error) {
	got, err := v.jwks.Load(ctx)
	switch {
	case errors.Is(err, jwks.ErrOtherIssuer):
		return 0, err
	case err != nil:
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case got.Keys == nil:
		return got.Fresh, nil
	}
	v.skipped.Store(&got.Skipped)
	old, version := v.current.Load(), trust.Fingerprint(got.Keys)
	if old.Version == version {
		return got.Fresh, nil
	}
	fetched, err := trust.FromKeys(got.Keys, version, v.jwks.Former, v.moment())
	if err != nil {
		return 0, err
	}
	v.swap(old, fetched)
	return got.Fresh, nil
}

// A PublicKey verifies tokens.
type PublicKey struct {
	KeyID       string
	Algorithm   string           // JOSE name, such as RS256
	Key         crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	Certificate *x509.Certificate
}

// PublicKeys returns the trusted keys that JWKS serves, including announced and replaced
// ones, each under one kid. Keys of a [Former] with another issuer are left out. If a client
// trusted these keys, the other system could sign tokens in the name of Config.Issuer.
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

// Refresh loads the keys now instead of within RefreshEvery. If it fails, the current keys
// stay in use. It is not rate-limited, so never call it for a request.
func (v *Verifier) Refresh(ctx context.Context) error {
	if err := v.refresh.Refresh(ctx); err != nil {
		return fmt.Errorf("fleetkey: refresh: %w", err)
	}
	return nil
}

// Close stops the background refresh and waits for it. Verify continues to work from
// memory. On the Verifier of a [Signer], Close does nothing; close the Signer instead.
func (v *Verifier) Close() error {
	if v.jwks != nil {
		v.refresh.Close()
		v.jwks.Close()
	}
	return nil
}

// Format prints only the source of the keys, for every verb. It prints no fields, because
// they may change while fmt reads them.
func (v *Verifier) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "verifier with the keys of %s", v.source)
}

func (v *Verifier) moment() trust.Moment {
	return trust.Moment{Wall: v.clock.Now(), Monotonic: v.clock.Monotonic()}
}

// adopt makes a key set the current one.
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
	v.swap(old, next)
	return nil
}

// swap makes a view the current one.
func (v *Verifier) swap(old *view, next *trust.View) {
	v.current.Store(&view{next, tokencache.New[*Token](v.cachedTokens)})
	if old == nil || old.Version != next.Version {
		v.logAdopted(old, next)
	}
}

// logAdopted logs what changed with a newly adopted set. It logs thumbprints besides kids,
// so that a replaced certificate of a known key shows.
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
	if v.jwks != nil {
		v.logger.Info("fetched the issuer's keys", "source", v.source, "kids", kids, "skipped", *v.skipped.Load())
		return
	}
	if old == nil {
		v.logger.Info("loaded the signing keys", keys...)
		return
	}
	v.logger.Info("loaded a changed key set from the store", append(keys, "old_version", old.Version)...)
	if len(kept) > 0 {
		v.logger.Warn("keys disappeared from the store without being revoked; their tokens are accepted until they expire",
			"store", v.source, "version", next.Version, "kids", kept)
	}
}

// report logs a change of state, and a reminder at most once an hour.
func (v *Verifier) report(before, after refresh.State, wait time.Duration) {
	if after.Err == nil {
		if before.Err != nil {
			v.logger.Info("refreshed the signing keys after earlier failures", "store", v.source, "failures", before.Failures)
		}
		return
	}
	now := v.clock.Monotonic()
	if before.Err != nil && now-v.told < time.Hour {
		return
	}
	v.told = now
	if after.LastGood.IsZero() {
		v.logger.Warn("cannot fetch the issuer's keys yet; retrying", "source", v.source, "failures", after.Failures, "err", after.Err)
		return
	}
	keys := []any{"store", v.source, "failures", after.Failures, "last_good", after.LastGood, "retry_in", wait, "err", after.Err}
	if errors.Is(after.Err, ErrNotExist) {
		keys = append(keys, "hint", "the bundle was deleted; running instances never create a new one")
	}
	v.logger.Error("cannot refresh the signing keys; continuing with the last good ones", keys...)
}
