package fleetkey

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fleetkey/fleetkey/internal/keyset"
)

// This file moves the key that an instance had for itself into the store that a
// fleet shares, so that the tokens it has signed stay good.

// An adoption is a key set on its way from Config.Adopt.
type adoption struct {
	set     *keyset.Set
	bundle  []byte
	version Version // of the store that it comes from
}

// movedNote is what finishAdoption adds to the bundle that it has moved to a
// store, behind the PEM blocks, where it means nothing to a reader of the keys.
// The keys stay: nothing is lost if both stores turn out to be one and the same.
func movedNote(store KeyStore) string {
	name := strings.ReplaceAll(storeName(store), "--", "- -") // five dashes would look like PEM
	return "\nMoved: these keys were adopted by " + name + "\n"
}

// beginAdoption loads what Config.Adopt holds and makes it this instance's
// first key set. If the shared store then turns out to hold another one, this
// instance keeps verifying tokens of the old, by the rule for sets that were
// exchanged (see keepVanished). It returns nil if there is nothing to move: no
// bundle, one without private keys, or one that was moved before.
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
	set, err := keyset.Parse(bundle)
	if err != nil {
		return fail(err)
	}
	if len(set.Private()) == 0 || bytes.Contains(bundle, []byte(movedNote(s.store))) {
		return nil, nil
	}
	if set.Signing(s.verifier.clock.Now()) == nil {
		if set, err = set.Rotate(s.verifier.clock.Now(), &s.verifier.policy); err != nil {
			return fail(err)
		}
	}
	if err := s.verifier.adopt(set, ""); err != nil {
		return fail(err)
	}
	s.cfg.Logger.Info("adopting signing keys", "from", storeName(s.cfg.Adopt), "kids", set.IDs())
	return &adoption{set, bundle, version}, nil
}

// finishAdoption makes the whole fleet trust the keys that did not
// become the shared ones, for as long as their tokens may live, and notes that
// in the store that they came from, so that the next start does not do it again.
// It requires permission to write only if another instance's key was first. Failure
// costs at most those tokens, so it is logged and the server starts.
func (s *Signer) finishAdoption(ctx context.Context, a *adoption) {
	err := s.change(ctx, "adopt", func(shared *keyset.Set, now time.Time) (*keyset.Set, error) {
		return shared.Adopt(a.set, now, &s.verifier.policy)
	})
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		defer cancel()
		_, err = s.cfg.Adopt.Save(ctx, slices.Concat(a.bundle, []byte(movedNote(s.store))), a.version)
	}
	if err != nil {
		s.cfg.Logger.Warn("the old keys could not be moved to the end; other instances may refuse the tokens that this one has signed with them, and the next start tries again",
			"from", storeName(s.cfg.Adopt), "store", storeName(s.store), "err", err)
	}
}
