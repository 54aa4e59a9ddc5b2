package verifying

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

const service = "https://api.example"

// TestFleet shows the tokens of a fleet to a hundred Verifiers, or to twenty under the race
// detector.
func TestFleet(t *testing.T) {
	kind := Kind{Name: "fleetkey", Count: 100, Open: func(ctx context.Context, issuer Issuer) (Verify, error) {
		v, err := fleetkey.NewVerifier(ctx, fleetkey.VerifierConfig{Issuer: issuer.URL, Audience: []string{issuer.Audience},
			HTTPClient: issuer.HTTPClient, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { assert.NoError(t, v.Close()) })
		return func(ctx context.Context, token string) error {
			_, err := v.Verify(ctx, token)
			return err
		}, nil
	}}
	if testkit.Race() {
		kind.Count = 20
	}
	synctest.Test(t, func(t *testing.T) {
		begins := time.Now()
		tallies, err := Run(t.Context(), testkit.Issuer, service, []Kind{kind})
		require.NoError(t, err)
		t.Logf("%v: %+v", time.Since(begins), tallies)
		ours := tallies[0]
		assert.Zero(t, ours.Refused, "good tokens were refused outside the window: %v", ours.Why)
		assert.Zero(t, ours.Revoked, "tokens of a revoked key were accepted")
		assert.LessOrEqual(t, ours.MostInAMinute, 6)
		assert.Positive(t, ours.RefusedInWindow, "an instance serves the old JWKS for a while")
	})
}

// TestFetchBlocksNobody has every fetch hang, whatever has caused it.
func TestFetchBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := fleetkeytest.NewIssuer(t)
		hanging := make(chan struct{}, 1000)
		var hangs atomic.Bool
		client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if !hangs.Load() {
				return issuer.HTTPClient.Transport.RoundTrip(r)
			}
			hanging <- struct{}{}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}
		v, err := fleetkey.NewVerifier(t.Context(), fleetkey.VerifierConfig{Issuer: issuer.URL, Audience: []string{service},
			HTTPClient: client, CachedTokens: -1, Logger: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		defer func() { require.NoError(t, v.Close()) }()
		good := issuer.Token(fleetkey.Claims{Subject: "alice", ClientID: "web", Audience: []string{service}, ExpiresAt: time.Now().Add(time.Hour)})
		hangs.Store(true)
		for cause, begin := range map[string]func(){
			"the timer":    func() {},
			"Refresh":      func() { go func() { _ = v.Refresh(t.Context()) }() },
			"made-up kids": func() { flood(t, v, good, 2000) },
		} {
			time.Sleep(time.Minute)
			begin()
			<-hanging
			begins := time.Now()
			token, err := v.Verify(t.Context(), good)
			require.NoError(t, err, cause)
			require.Equal(t, "alice", token.Subject())
			require.Zero(t, time.Since(begins), cause)
			for len(hanging) > 0 {
				<-hanging
			}
		}
	})
}

// flood shows tokens with made-up kids all at once.
func flood(t *testing.T, v *fleetkey.Verifier, good string, tokens int) {
	t.Helper()
	for range tokens {
		go func() {
			_, err := v.Verify(t.Context(), madeUp(good))
			if !errors.Is(err, fleetkey.ErrUnknownKey) {
				t.Errorf("a made-up kid: %v", err)
			}
		}()
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
