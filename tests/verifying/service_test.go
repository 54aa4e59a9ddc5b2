package verifying

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/jws/jwstest"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// This file holds what a service sees of its Verifier from start to end.

// TestVerifierClose: it ends a fetch under way and all that would follow, can be called
// twice, and leaves the keys and the program's connections.
func TestVerifierClose(t *testing.T) {
	testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
		v := p.Verifier(t)
		p.Serve(testkit.JWKSURL, testkit.Slowly(time.Hour, nil))
		waiting := make(chan error)
		go func() { waiting <- v.Refresh(context.Background()) }()
		synctest.Wait()
		begin := time.Now()
		require.NoError(t, v.Close())
		require.Error(t, <-waiting)
		require.NoError(t, v.Close())
		require.Equal(t, begin, time.Now())
		require.Error(t, v.Refresh(t.Context()))
		time.Sleep(testkit.Day)
		require.Len(t, p.Requests(testkit.JWKSURL), 2)
		_, err := v.Verify(t.Context(), testkit.AccessToken(key))
		require.NoError(t, err)
		require.NoError(t, v.Status().LoadErr, "closing is not the issuer's failure")
	})
}

// TestFirstFetchFails (istio#42202, jwx#2342, mobula#28): NewVerifier returns within 10
// seconds, or when its context ends, which limits nothing else. It tries again after 1, 2
// and 4 seconds, and accepts tokens as soon as the keys are there.
func TestFirstFetchFails(t *testing.T) {
	for name, test := range map[string]struct {
		failure               http.HandlerFunc
		fetch, context, start time.Duration // what they take, or may take
	}{
		"500":                       {testkit.Answer(500, ""), 0, time.Hour, 0},
		"it hangs":                  {testkit.Slowly(time.Hour, nil), 10 * time.Second, time.Hour, 10 * time.Second},
		"it hangs, with a deadline": {testkit.Slowly(time.Hour, nil), 10 * time.Second, time.Second, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.Publishing(t, func(t *testing.T, p *testkit.Provider, key *jwstest.Forger, _ string) {
				p.Serve(testkit.JWKSURL, test.failure)
				ctx, cancel := context.WithTimeout(t.Context(), test.context)
				defer cancel()
				begin := time.Now()
				v, err := fleetkey.NewVerifier(ctx, p.Config())
				require.NoError(t, err)
				defer v.Close()
				require.Equal(t, test.start, time.Since(begin))
				require.Equal(t, test.start > 0, errors.Is(v.Status().LoadErr, context.DeadlineExceeded))
				refuses(t, fleetkey.ErrUnavailable, v, testkit.AccessToken(key))
				time.Sleep(time.Minute)
				requests := p.Requests(testkit.JWKSURL)
				// An unknown kid has taken its turn, so the first wait may be shorter.
				for i, most := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
					require.LessOrEqual(t, requests[i+1].At.Sub(requests[i].At), most+test.fetch)
				}
				p.Publish(key.JWK())
				time.Sleep(time.Minute + 10*time.Second)
				accepts(t, v, testkit.AccessToken(key))
			})
		})
	}
}
