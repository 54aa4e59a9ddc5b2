package faultproxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const answer = `{"Name":"the whole answer"}`

// A backend gives one answer.
type backend struct{}

func (backend) RoundTrip(r *http.Request) (*http.Response, error) {
	if _, err := io.ReadAll(r.Body); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer))}, nil
}

// call makes one call through a proxy. The body may be read in part although the
// error is not nil.
func call(ctx context.Context, p *Proxy) (status int, body string, err error) {
	transport := &http.Transport{DialContext: p.Dial}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.URL, strings.NewReader("{}"))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("X-Amz-Target", "secretsmanager.GetSecretValue")
	resp, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// outcomes are what a client sees of each kind, and whether the server did.
var outcomes = []struct {
	kind    Kind
	status  int
	body    string // the beginning
	reset   bool   // the connection breaks
	gaveUp  bool   // the client's time is over first
	arrived int
}{
	{kind: Pass, status: 200, body: answer, arrived: 1},
	{kind: Slow, status: 200, body: answer, arrived: 1},
	{kind: Hang, gaveUp: true},
	{kind: Late, gaveUp: true, arrived: 1},
	{kind: Reset, reset: true},
	{kind: Lost, reset: true, arrived: 1},
	{kind: Cut, status: 200, body: answer[:len(answer)/2], reset: true, arrived: 1},
	{kind: Trickle, status: 200, body: answer[:1], gaveUp: true, arrived: 1},
	{kind: Throttled, status: 400, body: `{"__type":"ThrottlingException"`},
	{kind: TooMany, status: 429, body: "slow down"},
	{kind: Throttled503, status: 503, body: `{"__type":"ThrottlingException"`},
	{kind: InternalError, status: 500, body: `{"__type":"InternalServiceError"`},
	{kind: HTML, status: 503, body: "<html>"},
	{kind: Empty503, status: 503},
	{kind: Empty, status: 200},
	{kind: Garbage, status: 200, body: "\x1f\x8b"},
	{kind: Foreign, status: 200, body: `{"status"`},
	{kind: Truncated, status: 200, body: answer[:len(answer)/2], arrived: 1},
	{kind: Expired, status: 400, body: `{"__type":"ExpiredTokenException"`},
	{kind: Unrecognized, status: 400, body: `{"__type":"UnrecognizedClientException"`},
	{kind: Denied, status: 400, body: `{"__type":"AccessDeniedException"`},
	{kind: KMSUnavailable, status: 400, body: `{"__type":"DecryptionFailure"`},
}

func TestEachKindReachesTheClient(t *testing.T) {
	require.Len(t, outcomes, len(All)+1)
	for _, want := range outcomes {
		t.Run(string(want.kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := StartPipes(t, backend{})
				p.Play(func(string) Fault { return Fault{Kind: want.kind, Delay: time.Second} })
				ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
				defer cancel()
				begin := time.Now()
				status, body, err := call(ctx, p)
				took := time.Since(begin)
				assert.Equal(t, want.status, status)
				assert.True(t, strings.HasPrefix(body, want.body), body)
				switch {
				case want.gaveUp:
					require.ErrorIs(t, err, context.DeadlineExceeded)
					require.Equal(t, 1500*time.Millisecond, took)
				case want.reset:
					require.Error(t, err)
					require.NotErrorIs(t, err, context.DeadlineExceeded)
				default:
					require.NoError(t, err)
					require.Equal(t, time.Second+time.Millisecond, took)
				}
				synctest.Wait()
				require.Equal(t, want.arrived, p.Forwarded("GetSecretValue"))
				require.Equal(t, map[Kind]int{want.kind: 1}, p.Counts())
			})
		})
	}
}
