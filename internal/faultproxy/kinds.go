package faultproxy

import (
	"math/rand/v2"
	"net/http"
	"time"
)

// A Kind is one way for a call to go wrong, or not to. The comments name the rows of
// docs/faults.md.
type Kind string

// What can happen to a call. Unless the comment says otherwise, the server has not seen
// it.
const (
	Pass  Kind = "pass"  // nothing
	Slow  Kind = "slow"  // A3: the right answer, after a Delay
	Hang  Kind = "hang"  // A3: no answer until the client gives up
	Late  Kind = "late"  // A3, A13: the same, but then the server does the work
	Reset Kind = "reset" // A3: the connection is reset (RST) before any answer
	Lost  Kind = "lost"  // A13: the work is done, then the connection reset
	Cut   Kind = "cut"   // A3, A13: the work is done, the answer reset half-way
	// Trickle has the work done and the right answer sent one byte at a time. A3
	Trickle Kind = "trickle"

	Throttled      Kind = "ThrottlingException"          // A1: HTTP 400, as AWS documents it
	TooMany        Kind = "429"                          // A1: as a gateway says it
	Throttled503   Kind = "ThrottlingException with 503" // A1
	InternalError  Kind = "InternalServiceError"         // A2: HTTP 500
	HTML           Kind = "503 as HTML"                  // A2
	Empty503       Kind = "503 empty"                    // A2
	Empty          Kind = "200 empty"                    // A2
	Garbage        Kind = "200 with garbage"             // A4: no JSON
	Foreign        Kind = "200 with foreign JSON"        // A4: JSON of something else
	Truncated      Kind = "200 truncated"                // A4, A13: the work is done, half of the answer sent as if it were all
	Expired        Kind = "ExpiredTokenException"        // A5
	Unrecognized   Kind = "UnrecognizedClientException"  // A5
	Denied         Kind = "AccessDeniedException"        // A6
	KMSUnavailable Kind = "DecryptionFailure"            // A6
)

// All are all kinds of faults.
var All = []Kind{Slow, Hang, Late, Reset, Lost, Cut, Trickle, Throttled, TooMany, Throttled503, InternalError, HTML, Empty503, Empty,
	Garbage, Foreign, Truncated, Expired, Unrecognized, Denied, KMSUnavailable}

const awsJSON = "application/x-amz-json-1.1"

// answers are those that the proxy gives by itself.
var answers = map[Kind]struct {
	status            int
	contentType, body string
}{
	Throttled:      {http.StatusBadRequest, awsJSON, `{"__type":"ThrottlingException","Message":"Rate exceeded"}`},
	TooMany:        {http.StatusTooManyRequests, "text/plain", "slow down"},
	Throttled503:   {http.StatusServiceUnavailable, awsJSON, `{"__type":"ThrottlingException","Message":"Rate exceeded"}`},
	InternalError:  {http.StatusInternalServerError, awsJSON, `{"__type":"InternalServiceError","Message":"An error occurred on the server side."}`},
	HTML:           {http.StatusServiceUnavailable, "text/html", "<html><body><h1>503 Service Unavailable</h1></body></html>"},
	Empty503:       {http.StatusServiceUnavailable, awsJSON, ""},
	Empty:          {http.StatusOK, awsJSON, ""},
	Garbage:        {http.StatusOK, awsJSON, "\x1f\x8b{\"SecretString\":"},
	Foreign:        {http.StatusOK, awsJSON, `{"status":"ok","uptime":17}`},
	Expired:        {http.StatusBadRequest, awsJSON, `{"__type":"ExpiredTokenException","message":"The security token included in the request is expired"}`},
	Unrecognized:   {http.StatusBadRequest, awsJSON, `{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}`},
	Denied:         {http.StatusBadRequest, awsJSON, `{"__type":"AccessDeniedException","Message":"User: arn:aws:sts::123456789012:assumed-role/web/i-0abc is not authorized to perform this"}`},
	KMSUnavailable: {http.StatusBadRequest, awsJSON, `{"__type":"DecryptionFailure","Message":"Secrets Manager can't decrypt the protected secret text using the provided KMS key."}`},
}

// Random is a plan by which calls meet a fault with a probability, and then one
// of some kinds, each as likely as the others. The same seed draws the same
// faults in the same order. A Delay of up to longest goes with Slow and Trickle.
func Random(seed uint64, probability float64, longest time.Duration, kinds ...Kind) Plan {
	rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // to be repeated, not to be secret
	return func(string) Fault {
		f := Fault{Kind: Pass}
		if hit, kind, delay := rng.Float64(), rng.IntN(len(kinds)), rng.Float64(); hit < probability {
			f.Kind = kinds[kind]
			if f.Kind == Slow || f.Kind == Trickle {
				f.Delay = time.Duration(delay * float64(longest))
			}
		}
		return f
	}
}
