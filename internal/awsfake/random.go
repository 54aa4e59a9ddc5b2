package awsfake

import (
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// kinds are the faults of networks and overloaded services. The comments name the rows
// of docs/faults.md. "slow" has a random Delay.
var kinds = map[string]Fault{
	"slow":    {},              // A3
	"hang":    {Hang: true},    // A3
	"late":    {Late: true},    // A3, A13
	"drop":    {Drop: true},    // A3
	"lost":    {Lost: true},    // A13
	"cut":     {Cut: true},     // A3, A13
	"trickle": {Trickle: true}, // A3

	"throttled":          Throttle(0), // A1
	"throttled with 503": {Error: &Error{Code: "ThrottlingException", Message: "Rate exceeded", Status: 503}},
	"429":                {Status: http.StatusTooManyRequests, Body: "slow down"},                                   // A1: from a gateway
	"500":                {Error: &Error{Code: "InternalServiceError", Message: "An error occurred.", Status: 500}}, // A2
	"503 as HTML":        {Status: http.StatusServiceUnavailable, Body: "<html>"},                                   // A2
	"503, empty":         {Status: http.StatusServiceUnavailable},                                                   // A2
	"200, empty":         {Status: http.StatusOK},                                                                   // A2
	"garbage":            {Body: "\x1f\x8b{\"SecretString\":"},                                                      // A4
	"foreign JSON":       {Body: `{"status":"ok","uptime":17}`},                                                     // A4
	"half an answer":     {Half: true},                                                                              // A4, A13

	"expired":      Expired(), // A5
	"unrecognized": {Error: &Error{Code: "UnrecognizedClientException", Message: "The security token is invalid."}},
	"denied":       {Error: &Error{Code: "AccessDeniedException", Message: "User is not authorized to perform this"}},
	"no KMS":       {Error: &Error{Code: "DecryptionFailure", Message: "Secrets Manager can't decrypt the protected secret text"}},
}

// Kinds returns the kinds of faults that Random draws from.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// Random makes each call meet a fault with the given probability. Its kind is one of some,
// all equally likely. The same seed draws the same faults in the same order. A slow answer
// takes up to longest.
func (s *Server) Random(seed uint64, probability float64, longest time.Duration, some ...string) {
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // must be repeatable, not secret
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draw = func() (kind string, f Fault) {
		if hit, i, delay := rng.Float64(), rng.IntN(len(some)), rng.Float64(); hit < probability {
			if kind, f = some[i], kinds[some[i]]; kind == "slow" {
				f.Delay = time.Duration(delay * float64(longest))
			}
		}
		return kind, f
	}
}
