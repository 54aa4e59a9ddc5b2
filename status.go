package fleetkey

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/fleetkey/fleetkey/internal/keyset"
	"github.com/fleetkey/fleetkey/internal/refresh"
	"github.com/fleetkey/fleetkey/internal/trust"
)

// Status describes the keys and the store of a [Signer] or [Verifier] at one moment. It is
// taken from memory. Health serves it as JSON.
type Status struct {
	Time    time.Time `json:"time"`    // wall-clock time of this Status
	Store   string    `json:"store"`   // name of the store; for a Verifier of [NewVerifier], "issuer" and the issuer's URL
	Version Version   `json:"version"` // of the bundle in use; for an issuer's keys, their digest
	Keys    []KeyInfo `json:"keys"`    // newest first; includes keys with RoleGone until they are deleted from the store

	SigningKeyID   string    `json:"signing_kid,omitempty"`    // current signing key; "": no key can sign
	SigningSince   time.Time `json:"signing_since,omitzero"`   // when it began to sign; in the future if, by this machine's clock, no key has begun yet
	NextActivation time.Time `json:"next_activation,omitzero"` // when the announced key begins to sign; zero: no key is announced
	RotationDue    time.Time `json:"rotation_due,omitzero"`    // when the next key is due to be announced; zero: rotation is off, or a key is announced
	NextChange     time.Time `json:"next_change,omitzero"`     // when a key next begins to sign or stops being trusted; zero: never
	Ending         time.Time `json:"ending,omitzero"`          // when the signing key's certificate ends, if that is soon and it has no successor

	LastLoad time.Time `json:"last_load,omitzero"` // last successful load of the keys; zero: never
	Failures int       `json:"failures,omitempty"` // failed loads since LastLoad

	// SkippedKeys counts the unusable keys of the issuer's JWKS by reason: "malformed",
	// "unsupported", "weak", "private", "use", "unnamed", "issuer" or "ambiguous". It is
	// set only for a Verifier of [NewVerifier].
	SkippedKeys map[string]int `json:"skipped_keys,omitempty"`

	ReadOnly bool `json:"read_only,omitempty"` // the store is read-only; keys are rotated and revoked elsewhere

	LostRevocations int `json:"lost_revocations,omitempty"` // known to this instance but missing in the store, after a rollback

	// In JSON, Err is the "reason", and the other two are among the "warnings".
	Err         error `json:"-"` // why Issue would fail now, or nil
	LoadErr     error `json:"-"` // of the last load, or nil
	RotationErr error `json:"-"` // of the last rotation that was due, or nil

	Counters Counters `json:"-"` // since the start of the process

	overdue bool // the rotation
	foreign bool // the keys are those of another issuer
}

// KeyInfo describes a key of the set or of the configuration. Only KeyID and Role are known
// of a revoked key. A replaced key loses its certificate and private key after a week, or
// Every/4 if that is less.
type KeyInfo struct {
	KeyID        string    `json:"kid"`
	Algorithm    string    `json:"alg,omitempty"`
	Role         Role      `json:"role"`
	NotBefore    time.Time `json:"not_before,omitzero"`    // when it begins to sign; zero: it has no certificate
	NotAfter     time.Time `json:"not_after,omitzero"`     // the certificate's end; zero: it has no certificate
	TrustedUntil time.Time `json:"trusted_until,omitzero"` // when its tokens stop being accepted; zero: no end is set, or the key is revoked
}

// A Role is the current stage of a key's life.
type Role string

// The roles of a key, in the order of its life.
const (
	RoleAnnounced Role = trust.RoleAnnounced // published and trusted, but does not sign yet
	RoleSigning   Role = trust.RoleSigning   // signs
	RoleRetired   Role = trust.RoleRetired   // replaced, but still trusted
	RoleFormer    Role = trust.RoleFormer    // of another system, or adopted; trusted
	RoleRevoked   Role = trust.RoleRevoked   // never trusted again
	RoleGone      Role = trust.RoleGone      // no longer trusted; deleted after a week, or Every/4 if that is less

	RolePublished Role = trust.RolePublished // in the JWKS of another issuer, which does not give roles
)

// Status reports the keys and the result of the last loads.
func (s *Signer) Status() Status {
	now, current, policy := s.verifier.clock.Now(), s.verifier.current.Load(), &s.verifier.policy
	status := s.verifier.Status()
	if err := s.rotation.err.Load(); err != nil {
		status.RotationErr = *err
	}
	status.ReadOnly = isReadOnly(s.store)
	status.LostRevocations = int(s.rotation.lost.Load())
	key, err := s.signingKey(now)
	if status.Err = err; err == nil {
		status.SigningKeyID, status.SigningSince = key.ID, key.Cert.NotBefore
	}
	if next := current.Set.Announced(now, policy); next != nil {
		status.NextActivation = next.Cert.NotBefore
	} else if k, _ := current.Set.Signing(now); k != nil && policy.Every > 0 { // also if Issue would fail for lack of a rotation
		status.RotationDue = policy.RotationDue(k)
		status.overdue = now.Sub(status.RotationDue) > 2*policy.RefreshEvery
	}
	if k := ending(current.Set, now); k != nil {
		status.Ending = k.Cert.NotAfter
	}
	return status
}

// Status reports the keys and the result of the last loads. Fields about signing and
// rotation are zero. Err is set if no token can be verified now.
func (v *Verifier) Status() Status {
	now, current, loads := v.clock.Now(), v.current.Load(), v.refresh.State()
	status := Status{
		Time: now, Store: v.source, Version: Version(current.Version),
		NextChange: current.NextChange(now),
		LastLoad:   loads.LastGood, LoadErr: loads.Err, Failures: loads.Failures, Counters: v.counters.read(loads),
		foreign: v.jwks != nil,
	}
	status.Counters.SuppressedLoads = v.refresh.Suppressed()
	if skipped := v.skipped.Load(); skipped != nil {
		status.SkippedKeys = maps.Clone(*skipped)
	}
	switch {
	case status.foreign && loads.LastGood.IsZero():
		status.Err = fmt.Errorf("the issuer's keys could not be fetched yet: %w", unavailable(loads.Err))
	case v.maxStale > 0:
		status.Err = v.tooStale(now)
	case !slices.ContainsFunc(current.Keys, func(k *trust.Key) bool { return k.Trusted(now) }):
		status.Err = fmt.Errorf("%w: no key is trusted now", ErrUnknownKey)
	}
	signing, _ := current.Signing(now)
	for _, k := range current.Keys {
		info := KeyInfo{KeyID: k.ID, Algorithm: k.Alg.Name, Role: Role(k.Role(now, signing)), TrustedUntil: k.Until}
		if k.Cert != nil {
			info.NotBefore, info.NotAfter = k.Cert.NotBefore, k.Cert.NotAfter
		}
		status.Keys = append(status.Keys, info)
	}
	for _, kid := range current.Set.Revoked {
		status.Keys = append(status.Keys, KeyInfo{KeyID: kid, Role: RoleRevoked})
	}
	return status
}

// Warnings returns, in words, what an operator should look at although tokens are issued
// and verified. It is empty if all is well.
func (s Status) Warnings() []string {
	var warnings []string
	others := ""
	if s.ReadOnly {
		others = " (the store is read-only here: make the change where its keys come from)"
	}
	if s.LoadErr != nil && (!s.foreign || !s.LastLoad.IsZero() && s.Time.Sub(s.LastLoad) >= foreignPatience) {
		warnings = append(warnings, fmt.Sprintf("the keys have not been loaded since %s: %v", s.LastLoad.UTC().Format(time.RFC3339), s.LoadErr))
	}
	if s.RotationErr != nil {
		warnings = append(warnings, fmt.Sprintf("the signing key could not be rotated: %v", s.RotationErr))
	}
	if s.SigningSince.After(s.Time) {
		warnings = append(warnings, fmt.Sprintf("key %s signs before its start at %s: is the clock right?", s.SigningKeyID, s.SigningSince.UTC().Format(time.RFC3339)))
	}
	if s.overdue {
		warnings = append(warnings, "a rotation has been overdue since "+s.RotationDue.UTC().Format(time.RFC3339)+others)
	}
	if s.LostRevocations > 0 {
		warnings = append(warnings, fmt.Sprintf("the store has lost %d revocations known to this instance; revoke these keys again, or turn rotation on%s", s.LostRevocations, others))
	}
	if n := s.count(RoleRevoked); n >= manyRevoked {
		warnings = append(warnings, fmt.Sprintf("%d keys are revoked; a bundle has room for about 300", n))
	}
	for _, k := range s.Keys {
		if k.Role == RoleRetired && k.NotBefore.IsZero() && k.TrustedUntil.Sub(s.Time) > maxDuration {
			warnings = append(warnings, fmt.Sprintf("retired key %s is trusted until %s, a date that fleetkey never writes; revoke the key, or correct the date in the bundle", k.KeyID, k.TrustedUntil.UTC().Format(time.RFC3339)))
		}
	}
	if !s.Ending.IsZero() {
		warnings = append(warnings, "the signing key has no successor and ends at "+s.Ending.UTC().Format(time.RFC3339))
	}
	return warnings
}

const (
	// manyRevoked is the number of revoked keys from which Warnings reports them.
	manyRevoked = 48
	// foreignPatience is how long another party's issuer may be unreachable before Warnings
	// reports it, and the interval at which the log repeats it.
	foreignPatience = time.Hour
)

func (s Status) count(role Role) (n int) {
	for _, k := range s.Keys {
		if k.Role == role {
			n++
		}
	}
	return n
}

// MarshalJSON adds an overall status, "ok", "degraded" or "failing", with the reason and
// the warnings.
func (s Status) MarshalJSON() ([]byte, error) {
	type fields Status
	s.Time, s.LastLoad = s.Time.UTC(), s.LastLoad.UTC()
	out := struct {
		Status   string   `json:"status"`
		Reason   string   `json:"reason,omitempty"`
		Warnings []string `json:"warnings,omitempty"`
		fields
	}{"ok", "", s.Warnings(), fields(s)}
	if s.Err != nil {
		out.Status, out.Reason = "failing", s.Err.Error()
	} else if len(out.Warnings) > 0 {
		out.Status = "degraded"
	}
	return json.Marshal(out)
}

// Health returns a handler for load balancers and monitoring. It answers 200 while Issue
// and Verify work, and 503 when Issue would fail, with the Status as JSON. An unreachable
// store is only a warning, since taking every instance out of service would turn a small
// fault into a large one. Answers come from memory. They contain no key material, but the
// store's name and errors, so only operators and the load balancer should have access.
func (s *Signer) Health() http.Handler { return health(s.Status) }

// Health returns a handler like [Signer.Health]. It answers 503 when Verify would reject
// every token: without a key, or with keys older than MaxStale. An unreachable issuer
// becomes a warning after an hour.
func (v *Verifier) Health() http.Handler { return health(v.Status) }

func health(read func() Status) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := read()
		body, err := json.Marshal(status)
		if err != nil { // strings and times only
			http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if status.Err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		if r.Method != http.MethodHead {
			_, _ = w.Write(body)
		}
	})
}

const (
	// endWarning is how long before its end a certificate without a successor causes a
	// warning, and endWarningEvery how often.
	endWarning      = 90 * 24 * time.Hour
	endWarningEvery = 24 * time.Hour
)

// ending returns the signing key if its certificate ends soon and no key takes over, or
// nil.
func ending(set *keyset.Set, now time.Time) *keyset.Key {
	k, _ := set.Signing(now)
	if k == nil || set.Successor(k) != nil || k.Cert.NotAfter.Sub(now) > endWarning {
		return nil
	}
	return k
}

// report logs the result of a load and, once a day, that the signing key's certificate ends
// soon. Only the refresh goroutine calls it.
func (s *Signer) report(before, after refresh.State, wait time.Duration) {
	s.verifier.report(before, after, wait)
	k := ending(s.verifier.current.Load().Set, s.verifier.clock.Now())
	if after.Err != nil || k == nil || !s.rotation.warned.IsZero() && time.Since(s.rotation.warned) < endWarningEvery {
		return
	}
	s.rotation.warned = time.Now()
	s.cfg.Logger.Warn("the signing key's certificate ends soon and has no successor; rotate the key, or turn rotation on",
		"store", storeName(s.store), "kid", k.ID, "not_after", k.Cert.NotAfter)
}

// Counters counts what a [Signer] or [Verifier] has done since it started.
type Counters struct {
	Issued uint64 // tokens signed by Issue and Sign

	// Verified counts calls of Verify by outcome: "accepted", or the name of the error,
	// such as "expired" for ErrExpired and "wrong_audience" for ErrWrongAudience. Every
	// outcome has an entry.
	Verified map[string]uint64

	CacheHits   uint64 // accepted tokens that cost no cryptography
	Loads       uint64 // successful background loads of the keys
	FailedLoads uint64 // failed ones

	// SuppressedLoads counts tokens with an unknown kid that caused no load because the
	// keys had been loaded within the last 10 seconds.
	SuppressedLoads uint64
}

const accepted = "accepted"

// rejections lists the other outcomes by error. The most general error comes last.
var rejections = [...]struct {
	err     error
	outcome string
}{
	{ErrUnavailable, "unavailable"}, {ErrMalformed, "malformed"}, {ErrWrongType, "wrong_type"}, {ErrUnknownKey, "unknown_key"},
	{ErrWrongAlgorithm, "wrong_algorithm"}, {ErrBadSignature, "bad_signature"}, {ErrMissingClaim, "missing_claim"},
	{ErrExpired, "expired"}, {ErrNotYetValid, "not_yet_valid"}, {ErrWrongIssuer, "wrong_issuer"},
	{ErrWrongAudience, "wrong_audience"}, {ErrInvalidClaims, "invalid_claims"},
}

// counters costs one atomic addition per call.
type counters struct {
	issued, accepted, cacheHits atomic.Uint64
	rejected                    [len(rejections)]atomic.Uint64
}

// reject counts a token that Verify rejected.
func (c *counters) reject(err error) {
	for i, r := range rejections {
		if errors.Is(err, r.err) {
			c.rejected[i].Add(1)
			return
		}
	}
}

func (c *counters) read(loads refresh.State) Counters {
	hits := c.cacheHits.Load()
	out := Counters{Issued: c.issued.Load(), CacheHits: hits, Loads: loads.Good, FailedLoads: loads.Bad,
		Verified: map[string]uint64{accepted: c.accepted.Load() + hits}}
	for i, r := range rejections {
		out.Verified[r.outcome] = c.rejected[i].Load()
	}
	return out
}
