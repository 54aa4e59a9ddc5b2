package fleetkey

import "context"

// NewSignerUnchecked is NewSigner without the bounds that keep tokens from being
// rejected, so that the simulation can show what they are for.
func NewSignerUnchecked(ctx context.Context, store KeyStore, cfg Config) (*Signer, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return newSigner(ctx, store, cfg)
}
