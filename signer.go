package fleetkey

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
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

// A reading is what a store held.
type reading struct {
	set     *keyset.Set
	version Version
}

const (
	// storeTimeout ends a call to a store.
	storeTimeout = 30 * time.Second
	// emptyTimeout bounds the wait for the winner's bundle after a lost create.
	emptyTimeout = 10 * time.Second
	// firstRetry is the first of the growing waits for an unavailable store.
	firstRetry = time.Second
)

// NewSigner loads the key set from the store and keeps it fresh until Close. If the
// store is empty, NewSigner creates the fleet's first key and a self-signed certificate;
// however many instances start at once, all end up with the same one.
//
// While the store is unavailable ([ErrUnavailable]), NewSigner tries again, backing off up
// to RefreshEvery, until ctx ends; give ctx a deadline to fail instead. Every other failure
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
		Load: s.reload, Report: s.report, Then: s.maintain})
	s.noteAdoption(ctx, adoption)
	return s, nil
}

// policy returns the rotation policy for one change of the set, with its Maker.
func (s *Signer) policy() *keyset.Policy {
	p := s.verifier.policy
	p.Make = newMaker(s.cfg.CommonName)
	return &p
}

// start fills the first view. It tries again while a store is unavailable.
func (s *Signer) start(ctx context.Context) (*adoption, error) {
	var (
		begun *adoption
		// The key that it may have to generate is made once, so that a create whose
		// reply was lost is recognized as our own.
		first *keyset.Set
	)
	for wait := firstRetry; ; wait = min(2*wait, s.cfg.RefreshEvery) {
		var err error
		if begun == nil && s.cfg.Adopt != nil {
			begun, err = s.beginAdoption(ctx)
			first = begun.first()
		}
		if err == nil {
			err = s.loadOrCreate(ctx, &first)
		}
		if err == nil {
			return begun, nil
		}
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return nil, err
		}
		s.cfg.Logger.Warn("cannot read the signing keys yet, will try again", "store", storeName(s.store), "wait", wait, "err", err)
		if !refresh.Sleep(ctx, refresh.Jitter(wait)) {
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// loadOrCreate loads the key set, or creates it if the store definitely has
// none. A refusal of the very first read may hide that it has none, and to
// create never overwrites, so it is tried then too; the answer still has to be
// read afterwards, since a signer that cannot read cannot stay fresh.
func (s *Signer) loadOrCreate(ctx context.Context, first **keyset.Set) error {
	err := s.load(ctx)
	if !errors.Is(err, ErrNotExist) && !errors.Is(err, ErrAccessDenied) {
		return err
	}
	if s.cfg.MustExist {
		return fmt.Errorf("%w (Config.MustExist keeps a first key from being created)", err)
	}
	if *first == nil {
		var makeErr error
		if *first, makeErr = s.policy().First(s.verifier.clock.Now()); makeErr != nil {
			return makeErr
		}
	}
	bundle, encodeErr := (*first).Encode()
	if encodeErr != nil {
		return encodeErr
	}
	version, saveErr := s.save(ctx, bundle, "")
	switch {
	case saveErr == nil && errors.Is(err, ErrNotExist):
		s.cfg.Logger.Info("created the first signing key", "store", storeName(s.store), "kid", (*first).Keys[0].ID, "version", version)
		return s.take(reading{*first, version})
	case saveErr == nil || errors.Is(saveErr, ErrConflict):
		return s.loadWinner(ctx)
	case errors.Is(saveErr, ErrAccessDenied):
		return errors.Join(err, saveErr)
	}
	return saveErr
}

// loadWinner loads a bundle that certainly was saved, by a store that may not
// show it yet.
func (s *Signer) loadWinner(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, emptyTimeout)
	defer cancel()
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := s.load(ctx)
		if !errors.Is(err, ErrNotExist) {
			return err
		}
		if !refresh.Sleep(ctx, refresh.Jitter(wait)) {
			return fmt.Errorf("%s: the secret exists but has no value; put a bundle there, or remove it so that one is created: %w", storeName(s.store), err)
		}
	}
}

// load reads the store and takes over what it holds. It ignores a version that this
// instance has just moved on from: a replica of the store has not heard of the newest yet.
func (s *Signer) load(ctx context.Context) error {
	r, err := s.readStore(ctx)
	if err != nil {
		return err
	}
	if old := s.verifier.current.Load(); old != nil {
		now := s.verifier.moment()
		if old.IsStale(string(r.version), now.Monotonic) {
			return nil
		}
		if old.Version == string(r.version) && !old.Outdated(now.Wall) {
			s.read = r // not a set that was refused in between
			return nil
		}
	}
	return s.take(r)
}

// readStore returns what the store holds, and learns what was revoked.
func (s *Signer) readStore(ctx context.Context) (reading, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	bundle, version, err := s.store.Load(ctx)
	if err != nil {
		return reading{}, timedOut(ctx, err)
	}
	if version == s.read.version {
		return s.read, nil
	}
	set, err := keyset.Parse(bundle)
	if err != nil {
		return reading{}, fmt.Errorf("version %s in %s is not a key bundle: %w", version, storeName(s.store), err)
	}
	s.learn(set.Revoked)
	return reading{set, version}, nil
}

// learn remembers revocations. They outlive the set that named them.
func (s *Signer) learn(revoked []string) {
	s.revoked = slices.Compact(slices.Sorted(slices.Values(append(s.revoked, revoked...))))
}

// take makes the set that was read the one that this instance works with. An instance
// that can sign refuses a set that cannot, unless that set says in so many words that the
// key which signs now has to stop. The revocations of a refused set hold all the same.
func (s *Signer) take(r reading) error {
	s.read = r
	now, set := s.verifier.clock.Now(), r.set.Without(s.revoked)
	if old := s.verifier.current.Load(); old != nil {
		kept := old.Set.Without(s.revoked)
		signing, _ := kept.Signing(now)
		// Where the store has lost revocations, an older key would sign again, which others
		// may no longer trust.
		able := r.set.Withdraw(now, &s.verifier.policy, s.revoked...)
		if next, _ := able.Signing(now); next == nil && signing != nil && !set.Mentions(signing.ID) {
			err := s.verifier.adopt(kept, Version(old.Version))
			return errors.Join(err, fmt.Errorf("%w: version %s in %s holds no key that can sign, continuing with the last good keys: %w",
				refresh.ErrRefused, r.version, storeName(s.store), able.WhyNoKey(now)))
		}
	}
	return s.verifier.adopt(set, r.version)
}

// reload is load, for the refresher: after a failure, trust still ends by the clock.
func (s *Signer) reload(ctx context.Context) error {
	err := s.load(ctx)
	if old := s.verifier.current.Load(); err != nil && old.Outdated(s.verifier.clock.Now()) {
		err = errors.Join(err, s.verifier.adopt(old.Set, Version(old.Version)))
	}
	return err
}

func (s *Signer) save(ctx context.Context, bundle []byte, prev Version) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*storeTimeout)
	defer cancel()
	version, err := s.store.Save(ctx, bundle, prev)
	if err != nil {
		return "", timedOut(ctx, err)
	}
	return version, nil
}

// timedOut marks an error of a call that exceeded our limit as one that another try may
// avoid.
func timedOut(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) && !errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
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

// Format prints the kid and algorithm for every verb, and never the private half. That holds where fmt may call methods: not for a SigningKey in an
// unexported field, and not for its Signer by itself.
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

// PublicKeys returns every key that is trusted now, including those announced and those
// replaced. JWKS serves the same keys, and those of other systems under every kid that
// they have.
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
