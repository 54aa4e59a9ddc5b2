package fleetkey

import (
	"time"
)

// Status is what a [Signer] knows of its keys and its store at one moment. It
// is answered from memory.
type Status struct {
	Store        string    // how the store names itself
	Version      Version   // of the bundle in use
	SigningKeyID string    // kid of the key that signs now; "": none can
	Err          error     // why Issue would fail now; nil: it would not
	Keys         []KeyInfo // newest first
	NextChange   time.Time // when a key begins to sign or ends to be trusted; zero: never
	LastLoad     time.Time // when the store was last read with success
	LoadErr      error     // of the last load; nil: it succeeded
	Failures     int       // failed loads since LastLoad
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
	Announced  Role = "announced"   // published and trusted, does not sign yet
	Signing    Role = "signing"     // signs
	Retired    Role = "retired"     // replaced, but still trusted
	VerifyOnly Role = "verify-only" // trusted, has no private half
	Gone       Role = "gone"        // no longer trusted; the next writer drops it
)

// Status reports the keys and how the last loads went.
func (s *Signer) Status() Status {
	now, snap, h := s.cfg.Now(), s.current.Load(), s.health.Load()
	status := Status{
		Store: storeName(s.store), Version: snap.version,
		NextChange: snap.set.nextChange(now, s.cfg.Rotation.Retain),
		LastLoad:   h.loaded, LoadErr: h.err, Failures: h.failures,
	}
	k, err := s.signingKey(now)
	if status.Err = err; err == nil {
		status.SigningKeyID = k.id
	}
	for _, k := range snap.trusted {
		status.Keys = append(status.Keys, KeyInfo{
			KeyID: k.id, Algorithm: k.alg.name, Role: k.role(now, snap.signing(now)),
			NotBefore: k.cert.NotBefore, NotAfter: k.cert.NotAfter, TrustedUntil: k.until,
		})
	}
	return status
}

func (k *trustedKey) role(now time.Time, signing *trustedKey) Role {
	switch {
	case !now.Before(k.until):
		return Gone
	case k.private == nil:
		return VerifyOnly
	case k == signing:
		return Signing
	case k.cert.NotBefore.After(now):
		return Announced
	}
	return Retired
}

// logAdopted tells what changed with a newly adopted set.
func (s *Signer) logAdopted(old, next *snapshot) {
	var kids, kept []string
	for _, k := range next.trusted {
		kids = append(kids, k.id)
		if k.kept {
			kept = append(kept, k.id)
		}
	}
	if old == nil {
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

// warnOfEnd logs, once a day, that the signing key's certificate comes to its
// end and no other key is there to take over. Only the refresh goroutine calls
// it.
func (s *Signer) warnOfEnd() {
	now, snap := s.cfg.Now(), s.current.Load()
	k := snap.signing(now)
	if k == nil || snap.set.successor(k.key) != nil || k.cert.NotAfter.Sub(now) > endWarning ||
		!s.warned.IsZero() && time.Since(s.warned) < endWarningEvery {
		return
	}
	s.warned = time.Now()
	s.cfg.Logger.Warn("the signing key's certificate comes to its end and has no successor; rotate it, or switch rotation on",
		"store", storeName(s.store), "kid", k.id, "not_after", k.cert.NotAfter)
}
