package fleetkey

import (
	"errors"
	"sync/atomic"
)

// Counters count what a [Signer] has done since it started. They only grow.
type Counters struct {
	Issued uint64 // tokens signed, by Issue and Sign

	// Verified counts the calls of Verify by outcome: "accepted", or the error
	// as in "expired" for ErrExpired and "wrong_audience" for ErrWrongAudience.
	// Every outcome has an entry.
	Verified map[string]uint64

	CacheHits   uint64 // those accepted that cost no cryptography
	Loads       uint64 // background loads of the store that succeeded
	FailedLoads uint64 // and that did not
}

const accepted = "accepted"

// rejections are the other outcomes, by error; the general one comes last.
var rejections = [...]struct {
	err     error
	outcome string
}{
	{ErrMalformed, "malformed"}, {ErrWrongType, "wrong_type"}, {ErrUnknownKey, "unknown_key"},
	{ErrWrongAlgorithm, "wrong_algorithm"}, {ErrBadSignature, "bad_signature"}, {ErrMissingClaim, "missing_claim"},
	{ErrExpired, "expired"}, {ErrNotYetValid, "not_yet_valid"}, {ErrWrongIssuer, "wrong_issuer"},
	{ErrWrongAudience, "wrong_audience"}, {ErrInvalidClaims, "invalid_claims"},
}

// counters is one atomic addition a call.
type counters struct {
	issued, accepted, cacheHits atomic.Uint64
	rejected                    [len(rejections)]atomic.Uint64
	loads, failedLoads          atomic.Uint64
}

// reject counts a refusal of Verify.
func (c *counters) reject(err error) {
	for i, r := range rejections {
		if errors.Is(err, r.err) {
			c.rejected[i].Add(1)
			return
		}
	}
}

func (c *counters) read() Counters {
	hits := c.cacheHits.Load()
	out := Counters{Issued: c.issued.Load(), CacheHits: hits, Loads: c.loads.Load(), FailedLoads: c.failedLoads.Load(),
		Verified: map[string]uint64{accepted: c.accepted.Load() + hits}}
	for i, r := range rejections {
		out.Verified[r.outcome] = c.rejected[i].Load()
	}
	return out
}
