package fleetkey

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Status is what a [Signer] knows of its keys and its store at one moment. It
// is answered from memory.
type Status struct {
	Time    time.Time // the moment, by the wall clock
	Store   string    // how the store names itself
	Version Version   // of the bundle in use
	Keys    []KeyInfo // newest first, those gone included until they are pruned

	SigningKeyID   string    // kid of the key that signs now; "": none can
	SigningSince   time.Time // when it began
	NextActivation time.Time // when the announced key begins to sign; zero: none is announced
	RotationDue    time.Time // when the next key is to be announced; zero: rotation is off, or one is announced
	NextChange     time.Time // when a key begins to sign or ends to be trusted; zero: never
	Ending         time.Time // when the signing key's certificate ends, if that is near and no key takes over

	LastLoad time.Time // when the store was last read with success, by the machine's clock
	Failures int       // failed loads since

	Err         error // why Issue would fail now; nil: it would not
	LoadErr     error // of the last load; nil: it succeeded
	RotationErr error // of the last rotation that was due; nil: it succeeded

	Counters Counters // since the start
}

// KeyInfo describes a key of the set.
type KeyInfo struct {
	KeyID        string
	Algorithm    string
	Role         Role
	NotBefore    time.Time // begins to sign
	NotAfter     time.Time // the certificate's end
	TrustedUntil time.Time // its tokens are accepted until then
}

// A Role is what a key does at a moment of its life.
type Role string

// The roles of a key, in the order of its life.
const (
	RoleAnnounced Role = "announced" // published and trusted, does not sign yet
	RoleSigning   Role = "signing"   // signs
	RoleRetired   Role = "retired"   // replaced, but still trusted
	RoleFormer    Role = "former"    // another system's, trusted
	RoleGone      Role = "gone"      // no longer trusted; the next writer drops it
)

// Status reports the keys and how the last loads went.
func (s *Signer) Status() Status {
	now, snap, h := s.clock.Now(), s.current.Load(), s.health.Load()
	status := Status{
		Time: now, Store: storeName(s.store), Version: snap.version,
		NextChange: snap.set.nextChange(now, s.cfg.Rotation.Retain),
		LastLoad:   h.loaded, LoadErr: h.err, Failures: h.failures, Counters: s.counters.read(),
	}
	if err := s.rotationErr.Load(); err != nil {
		status.RotationErr = *err
	}
	signing, err := s.signingKey(now)
	if status.Err = err; err == nil {
		status.SigningKeyID, status.SigningSince = signing.id, signing.cert.NotBefore
	}
	if next := snap.set.announced(now, &s.cfg); next != nil {
		status.NextActivation = next.cert.NotBefore
	} else if k := snap.signing(now); k != nil && s.cfg.Rotation.Every > 0 { // also if Issue would fail: it may fail for want of a rotation
		status.RotationDue = rotationDue(k.key, &s.cfg)
	}
	if k := snap.ending(now); k != nil {
		status.Ending = k.cert.NotAfter
	}
	for _, k := range snap.keys {
		status.Keys = append(status.Keys, KeyInfo{
			KeyID: k.id, Algorithm: k.alg.name, Role: k.role(now, snap.signing(now)),
			NotBefore: k.cert.NotBefore, NotAfter: k.cert.NotAfter, TrustedUntil: k.until,
		})
	}
	return status
}

// Warnings tells what an operator should look at, in words, although tokens are
// issued and verified. It is empty if all is well.
func (s Status) Warnings() []string {
	var warnings []string
	if s.LoadErr != nil {
		warnings = append(warnings, fmt.Sprintf("the store could not be read since %s: %v", s.LastLoad.UTC().Format(time.RFC3339), s.LoadErr))
	}
	if s.RotationErr != nil {
		warnings = append(warnings, fmt.Sprintf("the signing key could not be rotated: %v", s.RotationErr))
	}
	if !s.Ending.IsZero() {
		warnings = append(warnings, "the signing key has no successor and ends at "+s.Ending.UTC().Format(time.RFC3339))
	}
	return warnings
}

// Health returns a handler for load balancers and monitors. It answers 200 while
// Issue and Verify work and 503 with the reason when Issue would fail; a store
// that cannot be reached is a warning in the answer, since to take every
// instance out of service for it would turn a small fault into a large one. It
// is answered from memory and shows no key material, but the store's name and
// errors: serve it where only operators and the load balancer can see it.
func (s *Signer) Health() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := s.Status()
		answer := struct {
			Status       string    `json:"status"`
			Reason       string    `json:"reason,omitempty"`
			Warnings     []string  `json:"warnings,omitempty"`
			SigningKeyID string    `json:"signing_kid,omitempty"`
			LastLoad     time.Time `json:"last_load"`
		}{"ok", "", status.Warnings(), status.SigningKeyID, status.LastLoad.UTC()}
		code := http.StatusOK
		if status.Err != nil {
			answer.Status, answer.Reason, code = "failing", status.Err.Error(), http.StatusServiceUnavailable
		} else if len(answer.Warnings) > 0 {
			answer.Status = "degraded"
		}
		body, err := json.Marshal(answer)
		if err != nil { // strings and times only
			http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(code)
		if r.Method != http.MethodHead {
			_, _ = w.Write(body)
		}
	})
}

func (k *trustedKey) role(now time.Time, signing *trustedKey) Role {
	switch {
	case !now.Before(k.until):
		return RoleGone
	case k.foreign:
		return RoleFormer
	case k == signing:
		return RoleSigning
	case k.private != nil && k.cert.NotBefore.After(now):
		return RoleAnnounced
	}
	return RoleRetired
}

// logAdopted tells what changed with a newly adopted set.
func (s *Signer) logAdopted(old, next *snapshot) {
	var kids, kept []string
	for _, k := range next.keys {
		kids = append(kids, k.id)
		if k.kept {
			kept = append(kept, k.id)
		}
	}
	if next.version == "" { // of Config.Adopt, on the way here
		s.cfg.Logger.Info("adopting signing keys", "from", storeName(s.cfg.Adopt), "kids", kids)
		return
	}
	if old == nil || old.version == "" {
		s.cfg.Logger.Info("loaded the signing keys", "store", storeName(s.store), "version", next.version, "kids", kids)
		return
	}
	s.cfg.Logger.Info("the store holds another key set, adopted it", "store", storeName(s.store),
		"old_version", old.version, "version", next.version, "kids", kids)
	if len(kept) > 0 {
		s.cfg.Logger.Warn("keys have vanished from the store; their tokens are accepted until they expire",
			"store", storeName(s.store), "version", next.version, "kids", kept)
	}
}

const (
	// endWarning is how long before its end a certificate without a successor
	// is warned of, and endWarningEvery how often.
	endWarning      = 90 * 24 * time.Hour
	endWarningEvery = 24 * time.Hour
)

// ending returns the signing key if its certificate comes to its end and no
// other key is there to take over, or nil.
func (s *snapshot) ending(now time.Time) *trustedKey {
	k := s.signing(now)
	if k == nil || s.set.successor(k.key) != nil || k.cert.NotAfter.Sub(now) > endWarning {
		return nil
	}
	return k
}

// warnOfEnd logs, once a day, that the signing key is ending. Only the refresh
// goroutine calls it.
func (s *Signer) warnOfEnd() {
	k := s.current.Load().ending(s.clock.Now())
	if k == nil || !s.warned.IsZero() && time.Since(s.warned) < endWarningEvery {
		return
	}
	s.warned = time.Now()
	s.cfg.Logger.Warn("the signing key's certificate comes to its end and has no successor; rotate it, or switch rotation on",
		"store", storeName(s.store), "kid", k.id, "not_after", k.cert.NotAfter)
}
