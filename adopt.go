package fleetkey

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// This file moves the key that an instance had for itself into the store that a
// fleet shares, so that the tokens it has signed stay good.

// An adoption is a key set on its way from Config.Adopt.
type adoption struct {
	set     *keySet
	version Version // of the store that it comes from
}

// beginAdoption loads what Config.Adopt holds and makes it this instance's
// first key set. If the shared store then turns out to hold another one, this
// instance keeps verifying tokens of the old, by the rule for sets that were
// exchanged (see keepVanished). It returns nil if there is nothing to move: no
// bundle, or one without private keys, which is what finishAdoption leaves.
func (s *Signer) beginAdoption(ctx context.Context) (*adoption, error) {
	if s.cfg.Adopt == nil {
		return nil, nil
	}
	fail := func(err error) (*adoption, error) {
		return nil, fmt.Errorf("adopt from %s: %w", storeName(s.cfg.Adopt), err)
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	bundle, version, err := s.cfg.Adopt.Load(ctx)
	if errors.Is(err, ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return fail(err)
	}
	set, err := parseKeySet(bundle)
	if err != nil {
		return fail(err)
	}
	if len(set.private()) == 0 {
		return nil, nil
	}
	if set.signing(s.cfg.Now()) == nil {
		if set, err = set.rotated(s.cfg.Now(), &s.cfg); err != nil {
			return fail(err)
		}
	}
	if err := s.adopt(set, ""); err != nil {
		return fail(err)
	}
	return &adoption{set, version}, nil
}

// finishAdoption sees to it that the whole fleet trusts the keys that did not
// become the shared ones, for as long as their tokens may live, and then takes
// the private halves out of the store that they came from: they are moved, and
// the next start finds nothing to do. It needs rights to write only if another
// instance's key was first. Failure costs at most those tokens, so it is logged
// and the server starts.
func (s *Signer) finishAdoption(ctx context.Context, a *adoption) {
	err := s.change(ctx, "adopt", func(shared *keySet, now time.Time) (*keySet, error) {
		keys := shared.keys[:len(shared.keys):len(shared.keys)]
		for _, k := range a.set.private() {
			if shared.find(k.id) != nil {
				continue
			}
			end := now.Add(s.cfg.Rotation.Retain)
			if k.cert.NotAfter.Before(end) {
				end = k.cert.NotAfter
			}
			retired, err := k.retire(end)
			if err != nil {
				return nil, err
			}
			keys = append(keys, retired)
		}
		if len(keys) == len(shared.keys) {
			return nil, nil
		}
		return newKeySet(keys...), nil
	})
	if err == nil {
		err = a.leave(ctx, s.cfg.Adopt)
	}
	if err != nil {
		s.cfg.Logger.Warn("the old keys could not be moved to the end; other instances may refuse the tokens that this one has signed with them",
			"from", storeName(s.cfg.Adopt), "store", storeName(s.store), "err", err)
	}
}

// leave saves the certificates without the private keys where they came from.
func (a *adoption) leave(ctx context.Context, store KeyStore) error {
	var public []*key
	for _, k := range a.set.keys {
		verifyOnly := *k
		verifyOnly.private = nil
		public = append(public, &verifyOnly)
	}
	bundle, err := newKeySet(public...).encode()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	_, err = store.Save(ctx, bundle, a.version)
	return err
}

// private returns the keys that have their private half.
func (s *keySet) private() []*key {
	var keys []*key
	for _, k := range s.keys {
		if k.private != nil {
			keys = append(keys, k)
		}
	}
	return keys
}
