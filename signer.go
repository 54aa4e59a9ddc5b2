package fleetkey

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fleetkey/fleetkey/internal/clock"
	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/refresh"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// A Signer issues and verifies access tokens with the key set that the fleet shares in a
// store. It works from memory. Issue never waits for the store. Verify waits for it only if
// a token has an unknown key, and at most once every 10 seconds.
//
// All methods are safe for concurrent use.
type Signer struct {
	cfg      Config
	store    KeyStore
	verifier *Verifier
	rotation rotation

	// The refresher's lock guards the fields below.
	read    reading  // result of the last read of the store
	revoked []string // kids this instance has ever seen revoked; never trusted again
}

// NewSigner loads the key set from the store and keeps it fresh until Close. If the store
// is empty, NewSigner creates the fleet's first key with a self-signed certificate. Any
// number of instances can start at once; they all end up with the same key.
//
// While the store is unavailable ([ErrUnavailable]), NewSigner retries with growing waits
// of up to half a minute until ctx ends; give ctx a deadline to fail instead. Any other
// error is returned at once. Existing keys are never overwritten. Once NewSigner has
// returned, ctx has no effect.
//
// Config.Adopt names the store that this instance used before, with keys that no other instance had. If the
// shared store is empty, NewSigner copies those keys there instead of creating one. They
// keep their kids, so existing tokens stay valid. If another instance was first, this one
// signs with the shared key, and still accepts the tokens that it issued before this start
// until they expire. The other instances reject those tokens, so keep sticky sessions on
// for MaxTokenTTL + 2 ClockSkew. A note in the old store keeps a later start from extending
// the trust in the old keys.
func NewSigner(ctx context.Context, store KeyStore, cfg Config) (*Signer, error) {
	s, err := newSigner(ctx, store, cfg)
	if err != nil {
		return nil, fmt.Errorf("fleetkey: %w", err)
	}
	return s, nil
}

func newSigner(ctx context.Context, store KeyStore, cfg Config) (*Signer, error) {
	if store == nil {
		return nil, errors.New("the store is nil: use NewFileStore, NewAWSStore or OpenStore")
	}
	cfg, err := cfg.withDefaults()
	if err == nil {
		err = cfg.checkBounds()
	}
	if err != nil {
		return nil, err
	}
	s := &Signer{cfg: cfg, store: store, verifier: newVerifier(ctx, store, &cfg)}
	if s.verifier.others, err = formerKeys(&cfg); err != nil {
		return nil, err
	}
	s.rotation.watch = clock.NewWatch(s.verifier.clock)
	adoption, err := s.start(ctx)
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	s.verifier.refresh = refresh.Start(refresh.Options{Every: cfg.RefreshEvery, Clock: s.verifier.clock,
		Load: s.reload, Report: s.report, Then: s.maintain}, 0, nil)
	s.noteAdoption(ctx, adoption)
	return s, nil
}

// policy returns the rotation policy, with a Maker for one change of the set.
func (s *Signer) policy() *keyset.Policy {
	p := s.verifier.policy
	p.Make = newMaker(s.cfg.CommonName)
	return &p
}

// signingKey returns the key that signs now, unless a token signed by it might
// be rejected before it expires.
func (s *Signer) signingKey(now time.Time) (*trust.Key, error) {
	current := s.verifier.current.Load()
	k, _ := current.Signing(now)
	if k == nil {
		return nil, current.Set.WhyNoKey(now)
	}
	if last := k.Until.Add(-s.cfg.MaxTokenTTL - 2*s.cfg.ClockSkew); now.After(last) {
		return nil, fmt.Errorf("%w: key %s should have been replaced by %s", ErrKeyExpired, k.ID, last.Format(time.RFC3339))
	}
	if r := s.cfg.Rotation; r.Every > 0 {
		// Worst case: the next key was announced by a slow clock, this token is dated
		// by a fast one, and the current key is dropped by a fast one. Allow one
		// ClockSkew for each.
		limit := r.Announce + r.Retain - s.cfg.MaxTokenTTL - 3*s.cfg.ClockSkew - trust.StaleRead
		if age := s.verifier.refresh.Age(now); age > limit {
			return nil, fmt.Errorf("%w: %v, more than %v", ErrStale, age.Round(time.Second), limit)
		}
	}
	return k, nil
}

// A SigningKey is the current signing key, for OpenID server frameworks that sign tokens
// themselves.
type SigningKey struct {
	KeyID       string
	Algorithm   string // JOSE name, such as RS256
	Signer      crypto.Signer
	Certificate *x509.Certificate
}

// Format prints the kid and algorithm for every verb, and never the private key. In two
// cases fmt does not call Format, so the private key is not protected: if the SigningKey is
// in an unexported field of another struct, and if you print its field Signer alone.
func (k SigningKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%s key %s", k.Algorithm, k.KeyID) }

// MarshalText returns the text that Format prints, for encoding/json and log/slog.
func (k SigningKey) MarshalText() ([]byte, error) { return fmt.Append(nil, k), nil }

// SigningKey returns the current signing key, or the zero SigningKey if no key can sign.
// Call it for every token, since the key changes.
func (s *Signer) SigningKey() SigningKey {
	k, err := s.signingKey(s.verifier.clock.Now())
	if err != nil {
		return SigningKey{}
	}
	return SigningKey{KeyID: k.ID, Algorithm: k.Alg.Name, Signer: k.Source.Private, Certificate: k.Cert}
}

// Verifier returns a Verifier that shares the Signer's keys, for code that must not sign.
func (s *Signer) Verifier() *Verifier { return s.verifier }

// Verify verifies an access token and returns its claims. See [Verifier.Verify].
func (s *Signer) Verify(ctx context.Context, token string) (*Token, error) {
	return s.verifier.Verify(ctx, token)
}

// Require returns middleware that admits only requests with a valid access token. See
// [Verifier.Require].
func (s *Signer) Require(scopes ...string) func(http.Handler) http.Handler {
	return s.verifier.Require(scopes...)
}

// Keyfunc returns the key of a token to golang-jwt. See [Verifier.Keyfunc].
func (s *Signer) Keyfunc(t *jwt.Token) (any, error) { return s.verifier.Keyfunc(t) }

// PublicKeys returns the keys that JWKS serves. See [Verifier.PublicKeys].
func (s *Signer) PublicKeys() []PublicKey { return s.verifier.PublicKeys() }

// Refresh loads the key set from the store now instead of within RefreshEvery. If it fails,
// the current keys stay in use.
func (s *Signer) Refresh(ctx context.Context) error { return s.verifier.Refresh(ctx) }

// Close stops the background refresh and waits until it has ended. If a call to the store
// ignores its context, Close waits for that call too. Issue and Verify continue to work with the last loaded keys.
func (s *Signer) Close() error {
	s.verifier.refresh.Close()
	return nil
}

// Format prints only the name of the store, for every verb. It prints no keys, and no
// fields, because they may change while fmt reads them.
func (s *Signer) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "signer with the keys of %s", storeName(s.store))
}
