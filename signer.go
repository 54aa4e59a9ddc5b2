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

// A Signer issues and verifies access tokens with the key set that its store
// keeps for the whole fleet. It works from memory: Issue and Verify neither
// lock nor wait for the store, with one exception: a token signed by a key not
// seen before makes Verify look for it in the store, at most once in 10 seconds.
//
// All methods may be called at the same time.
type Signer struct {
	cfg      Config
	store    KeyStore
	verifier *Verifier
	rotation rotation

	// The refresher's lock guards these.
	read    reading  // what the store held when it was last read
	revoked []string // kids that this instance has ever seen revoked, and never trusts again
}

// NewSigner loads the key set from the store and keeps it fresh until Close. If the
// store is empty, NewSigner creates the fleet's first key and a self-signed certificate;
// however many instances start at once, all end up with the same one.
//
// While the store is unavailable ([ErrUnavailable]), NewSigner tries again, backing off up
// to half a minute, until ctx ends; give ctx a deadline to fail instead. Every other failure
// is returned at once, and nothing that exists is ever overwritten. After NewSigner has
// returned, ctx has no effect.
//
// With Config.Adopt, an empty store gets the keys of that other store instead of a new
// one, under the same kids, so that live tokens stay valid. If another instance was first,
// this instance verifies the tokens that were issued with its old keys before it started,
// for as long as they can live; the other instances do not, so keep sticky sessions on for
// MaxTokenTTL. A note in the other store keeps a later start from renewing that trust.
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

// policy returns the rotation policy for one change of the set, with its Maker.
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
		return nil, fmt.Errorf("%w: key %s was to be replaced by %s", ErrKeyExpired, k.ID, last.Format(time.RFC3339))
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

// A SigningKey is the key that signs now, for OpenID server frameworks that do
// their own signing.
type SigningKey struct {
	KeyID       string
	Algorithm   string // JOSE name, such as RS256
	Signer      crypto.Signer
	Certificate *x509.Certificate
}

// Format prints the kid and algorithm for every verb, and never the private half. That
// holds where fmt may call methods: not for a SigningKey in an unexported field, and not
// for its Signer by itself.
func (k SigningKey) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "%s key %s", k.Algorithm, k.KeyID) }

// MarshalText returns the same text, for encoders such as encoding/json and
// log/slog.
func (k SigningKey) MarshalText() ([]byte, error) { return fmt.Append(nil, k), nil }

// SigningKey returns the key that signs now. Ask again for every token, since
// the key changes. If no key can sign, the result is the zero SigningKey.
func (s *Signer) SigningKey() SigningKey {
	k, err := s.signingKey(s.verifier.clock.Now())
	if err != nil {
		return SigningKey{}
	}
	return SigningKey{KeyID: k.ID, Algorithm: k.Alg.Name, Signer: k.Source.Private, Certificate: k.Cert}
}

// Verifier returns the verifying half of the Signer, for code that must not sign.
func (s *Signer) Verifier() *Verifier { return s.verifier }

// Verify checks an access token and returns what it says, as [Verifier.Verify] does.
func (s *Signer) Verify(ctx context.Context, token string) (*Token, error) {
	return s.verifier.Verify(ctx, token)
}

// Require returns middleware that lets a request through only if it carries a valid
// access token, as [Verifier.Require] does.
func (s *Signer) Require(scopes ...string) func(http.Handler) http.Handler {
	return s.verifier.Require(scopes...)
}

// Keyfunc gives golang-jwt the key of a token, as [Verifier.Keyfunc] does.
func (s *Signer) Keyfunc(t *jwt.Token) (any, error) { return s.verifier.Keyfunc(t) }

// PublicKeys returns the keys that JWKS serves, as [Verifier.PublicKeys] does.
func (s *Signer) PublicKeys() []PublicKey { return s.verifier.PublicKeys() }

// Refresh loads the key set from the store now, instead of within RefreshEvery. On
// failure the keys stay as they are, and the error says why.
func (s *Signer) Refresh(ctx context.Context) error { return s.verifier.Refresh(ctx) }

// Close ends the background refresh, and returns when it has ended; a store call
// that ignores its context is waited for. Issue and Verify continue to work from
// memory with the keys of the last load.
func (s *Signer) Close() error {
	s.verifier.refresh.Close()
	return nil
}

// Format prints the name of the store for every verb. The keys are left out, and so are
// the fields, which change while fmt would read them.
func (s *Signer) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "signer with the keys of %s", storeName(s.store))
}
