package awsfake

import (
	"cmp"
	"encoding/json"
	"net/http"
	"time"
)

// A Fault is what happens to calls instead of, or in addition to, what they request.
type Fault struct {
	Action string // such as "PutSecretValue"; empty: every action
	Times  int    // how many calls it affects; zero: all, until Heal

	Do    func()        // called first, to simulate what others do at this moment
	Delay time.Duration // passes before anything else happens

	Error  *Error // the answer; nothing is done
	Body   string // the answer as a page with this text and Status; nothing is done
	Status int    // the status of Body, which may be empty

	Hang    bool // no answer at all, and nothing done
	Drop    bool // the connection drops, and nothing done
	Late    bool // as Hang, but the work is done once the caller has hung up
	Lost    bool // the work is done, but the connection drops before the answer
	Cut     bool // the right answer, broken off in the middle
	Half    bool // half of the right answer, as if it were all
	Trickle bool // the right answer, at a byte a second
}

// Inject adds a fault. If several match a call, the oldest applies.
func (s *Server) Inject(f Fault) { s.locked(func() { s.faults = append(s.faults, &f) }) }

// Heal removes all faults. The policy and the lag of reads stay.
func (s *Server) Heal() { s.locked(func() { s.faults, s.draw = nil, nil }) }

// Throttle rejects the next n calls of any action, as if the account were over its quota.
func Throttle(n int) Fault {
	return Fault{Times: n, Error: &Error{Code: "ThrottlingException", Message: "Rate exceeded"}}
}

// Expired refuses every call, as AWS does with expired credentials.
func Expired() Fault {
	return Fault{Error: &Error{Code: "ExpiredTokenException", Message: "The security token included in the request is expired"}}
}

// KMSDenied refuses an action, as AWS does for a role that may use the secret but not
// its key.
func KMSDenied(action string) Fault {
	return Fault{Action: action, Error: &Error{Code: "AccessDeniedException", Message: "Access to KMS is not allowed"}}
}

// before applies what precedes the work, and reports whether the call ends there.
func (f *Fault) before(w http.ResponseWriter, r *http.Request) (done bool) {
	if f.Do != nil {
		f.Do()
	}
	if f.Delay > 0 {
		wait(r, time.After(f.Delay))
	}
	switch {
	case f.Hang:
		wait(r, nil)
	case f.Late:
		<-r.Context().Done()
	case f.Drop:
		panic(http.ErrAbortHandler)
	case f.Error != nil:
		writeReply(w, f.Error)
		return true
	case f.Body != "" || f.Status != 0:
		if w.Header().Get("Content-Type") == "" {
			w.Header().Set("Content-Type", "text/html")
		}
		if f.Status != 0 {
			w.WriteHeader(f.Status)
		}
		_, _ = w.Write([]byte(f.Body))
		return true
	}
	return false
}

// after sends the answer, or the part of it that the fault allows.
func (f *Fault) after(w http.ResponseWriter, r *http.Request, reply any) {
	switch {
	case f.Lost, f.Late:
		panic(http.ErrAbortHandler)
	case f.Cut, f.Half:
		body := encode(reply)
		_, _ = w.Write(body[:len(body)/2])
		if f.Cut {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	case f.Trickle:
		for _, b := range encode(reply) {
			_, _ = w.Write([]byte{b})
			_ = http.NewResponseController(w).Flush()
			wait(r, time.After(time.Second))
		}
	default:
		writeReply(w, reply)
	}
}

// wait waits, and aborts the call if the caller hangs up first.
func wait(r *http.Request, until <-chan time.Time) {
	select {
	case <-until:
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

func writeReply(w http.ResponseWriter, reply any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-RequestId", "00000000-0000-4000-8000-000000000000")
	if e, failed := reply.(*Error); failed {
		w.WriteHeader(cmp.Or(e.Status, http.StatusBadRequest))
	}
	_, _ = w.Write(encode(reply))
}

func encode(reply any) []byte {
	if b, ok := reply.([]byte); ok {
		return b
	}
	b, err := json.Marshal(reply)
	if err != nil {
		panic(err) // only our own types come here
	}
	return b
}
