// Package awsfake is an in-process AWS Secrets Manager for tests. It speaks the service's
// JSON 1.1 protocol, so the real SDK works with it. It follows AWS's documentation where
// emulators are laxer: request tokens, staging labels, deletion, version quota, error codes
// as JSON with HTTP status 400. Tests can add faults, IAM policies, eventual consistency and
// the quotas of an account, and read the cost.
//
//	aws := awsfake.Start(t)
//	aws.Setenv(t)                             // the SDK now finds it
//	aws.Inject(awsfake.Throttle(3))           // and is throttled three times
//
// [New] returns a server without a socket, reached by [Server.Client]. In a testing/synctest
// bubble, it uses the bubble's time.
//
// A Server is safe for concurrent use. Every operation is atomic.
package awsfake

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"golang.org/x/time/rate"
)

// The account and region whose secrets a Server holds.
const (
	Account = "123456789012"
	Region  = "eu-west-1"
)

// secretKey is as long as a real one, because Go's FIPS 140 mode does not sign with shorter
// keys.
const secretKey = "fakefakefakefakefakefakefakefakefakefake"

// A Server is one region of Secrets Manager, and the sources of the SDK's credentials.
type Server struct {
	URL string // set by Start

	mu      sync.Mutex
	secrets map[string]history
	calls   map[string]int
	faults  []*Fault
	draw    func() (kind string, f Fault)         // nil: no random faults
	watch   func(action string, in, reply []byte) // nil: nobody watches
	policy  *Policy
	lag     time.Duration // how old the state is that reads see
	stale   time.Duration // and how much older it can be at random
	quotas  map[string]*rate.Limiter
	lax     bool // as emulators are
}

// New returns a server without secrets and without a socket.
func New() *Server {
	return &Server{secrets: map[string]history{}, calls: map[string]int{}}
}

// Start returns a server on a loopback port that ends with the test.
func Start(t testing.TB) *Server {
	s := New()
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		h.CloseClientConnections() // the SDK continues to ask a source that hangs
		h.Close()
	})
	s.URL = h.URL
	return s
}

// Setenv makes the SDK's default configuration find a started server, with credentials and
// region, until the test ends.
func (s *Server) Setenv(t testing.TB) {
	for name, value := range map[string]string{
		"AWS_ENDPOINT_URL_SECRETS_MANAGER": s.URL,
		"AWS_ACCESS_KEY_ID":                "AKIDFAKE",
		"AWS_SECRET_ACCESS_KEY":            secretKey,
		"AWS_SESSION_TOKEN":                "",
		"AWS_PROFILE":                      "",
		"AWS_REGION":                       Region,
		"AWS_EC2_METADATA_DISABLED":        "true",

		"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "",
	} {
		t.Setenv(name, value)
	}
}

// Client returns an SDK client that calls the server without a socket. It retries like the
// SDK, but with pauses of a millisecond.
func (s *Server) Client(opts ...func(*secretsmanager.Options)) *secretsmanager.Client {
	o := secretsmanager.Options{
		Region:       Region,
		BaseEndpoint: aws.String("http://awsfake.invalid"),
		Credentials:  credentials.NewStaticCredentialsProvider("AKIDFAKE", secretKey, ""),
		HTTPClient:   s.HTTPClient(),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.Backoff = retry.BackoffDelayerFunc(func(int, error) (time.Duration, error) { return time.Millisecond, nil })
		}),
	}
	return secretsmanager.New(o, opts...)
}

// Calls returns the number of calls of an action, such as "GetSecretValue", or of all actions
// if it is empty. This includes failed and denied calls and each attempt of the SDK. With one
// of Kinds, it returns the number of calls that met that fault.
func (s *Server) Calls(action string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[action]
}

// Watch passes every successful call to f, in order, as JSON. f must not call the server.
func (s *Server) Watch(f func(action string, in, reply []byte)) { s.locked(func() { s.watch = f }) }

// Lag makes every read see the secrets as they were d ago; zero turns this off.
func (s *Server) Lag(d time.Duration) { s.locked(func() { s.lag = d }) }

// Lax makes the server behave like an emulator: PutSecretValue with the token of an existing
// version overwrites its value and its labels, and UpdateSecretVersionStage removes the label
// before it looks for the version that gets it.
func (s *Server) Lax() { s.locked(func() { s.lax = true }) }

func (s *Server) locked(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if action, reply := s.source(r); action != "" {
		s.serveSource(w, r, action, reply)
		return
	}
	action, _ := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "secretsmanager.")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	f := s.count(action)
	if f.before(w, r) {
		return
	}
	f.after(w, r, s.do(action, r.Header.Get("Authorization"), body))
}

// count records a call and returns its fault, or one that does nothing.
func (s *Server) count(action string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[action]++
	s.calls[""]++
	for i, f := range s.faults {
		if f.Action != "" && f.Action != action {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
			}
		}
		met := *f
		return &met
	}
	if s.overQuota(action) {
		full := Throttle(0)
		return &full
	}
	if s.draw == nil {
		return &Fault{}
	}
	kind, met := s.draw()
	if kind != "" {
		s.calls[kind]++
	}
	return &met
}

// An Error is an unsuccessful answer, sent as JSON.
type Error struct {
	Code    string `json:"__type"`
	Message string
	Status  int `json:"-"` // zero: 400
}

func errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// do decodes, authorizes and performs an action.
func (s *Server) do(action, signature string, body []byte) any {
	if !strings.Contains(signature, "/"+Region+"/secretsmanager/aws4_request") {
		return errorf("InvalidSignatureException", "Credential should be scoped to a valid region.")
	}
	var in request
	if err := json.Unmarshal(body, &in); err != nil {
		return errorf("SerializationException", "%v", err)
	}
	for _, token := range []string{in.ClientRequestToken, in.MoveToVersionId, in.RemoveFromVersionId} {
		if token != "" && (len(token) < 32 || len(token) > 64) {
			return errorf("ValidationException", "1 validation error detected: %q must have 32 to 64 characters", token)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if denied := s.authorize(action, &in); denied != nil {
		return denied
	}
	reply, refusal := s.perform(action, &in)
	if refusal != nil {
		return refusal
	}
	if s.watch != nil {
		s.watch(action, body, encode(reply))
	}
	return reply
}
