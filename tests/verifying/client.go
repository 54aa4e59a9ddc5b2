package verifying

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/fleetkey/fleetkey"
)

// A client verifies tokens with its own verifier.
type client struct {
	fleet   *fleet
	verify  Verify
	tally   *Tally      // of all clients of a kind; the fleet's mutex guards it and fetches
	fetches []time.Time // in the last minute
}

func (c *client) run(ctx context.Context) {
	for {
		pace := time.Duration(c.fleet.pace.Load())
		if !sleep(ctx, pace/2+mathrand.N(pace)) {
			return
		}
		c.show(ctx, c.fleet.pick(true))
		c.show(ctx, c.fleet.pick(false))
		if pace != quiet {
			_, err := c.ask(ctx, madeUp(c.fleet.pick(true).token))
			assert.Error(c.fleet.t, err, "a token with a made-up kid was accepted")
		}
	}
}

// show presents a token of the fleet.
func (c *client) show(ctx context.Context, t issued) {
	begins := time.Now()
	took, err := c.ask(ctx, t.token)
	f := c.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	revokedAt, revoked := f.revoked[t.kid]
	switch {
	case ctx.Err() != nil: // the story is over
	case revoked && err == nil && begins.Sub(revokedAt) > Window:
		c.tally.Revoked++
	case revoked:
	case err == nil:
		c.tally.Tokens++
		c.tally.Longest = max(c.tally.Longest, took)
	case time.Since(f.revokeAt) <= Window:
		c.tally.Tokens++
		c.tally.RefusedInWindow++
	default:
		c.tally.Tokens++
		c.tally.Refused++
		c.tally.Why = err
	}
}

func (c *client) ask(ctx context.Context, token string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	begins := time.Now()
	err := c.verify(ctx, token)
	return time.Since(begins), err
}

// RoundTrip answers a verifier's request, at one of the instances.
func (c *client) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path == fleetkey.JWKSPath {
		c.fleet.mu.Lock()
		c.fetches = slices.DeleteFunc(append(c.fetches, time.Now()), func(at time.Time) bool { return time.Since(at) >= time.Minute })
		c.tally.Fetches++
		c.tally.MostInAMinute = max(c.tally.MostInAMinute, len(c.fetches))
		c.fleet.mu.Unlock()
	}
	if !sleep(r.Context(), latency) {
		return nil, r.Context().Err()
	}
	answer := httptest.NewRecorder()
	if begins := c.fleet.outageBegins.Load(); begins != nil && time.Since(*begins) < Outage {
		switch left := Outage - time.Since(*begins); {
		case left > 2*Outage/3:
			http.Error(answer, "down", http.StatusServiceUnavailable)
			return answer.Result(), nil
		case left > Outage/3:
			return nil, errors.New("connection refused")
		default:
			sleep(r.Context(), left)
			return nil, errors.New("connection reset")
		}
	}
	c.fleet.handlers[mathrand.IntN(len(c.fleet.handlers))].ServeHTTP(answer, r)
	response := answer.Result()
	response.Request = r
	return response, nil
}

// madeUp returns a token with a kid that nobody has.
func madeUp(token string) string {
	_, rest, _ := strings.Cut(token, ".")
	header := fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"at+jwt"}`, Algorithm, rand.Text())
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + rest
}

// sleep returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
