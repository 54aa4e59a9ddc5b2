package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/tests/testkit"
)

// A history records what a fleet did under faults, and what the server did for it.
// It judges both afterwards, knowing nothing of how either works. It learns what the
// server did from the calls that reached it.
type history struct {
	mu       sync.Mutex // guards what follows
	stored   map[fleetkey.Version]keySet
	chain    []change        // what became current, in its order
	puts     []time.Time     // versions made
	asked    map[string]bool // kids that an operator wanted to revoke
	tokens   []*token
	verdicts []verdict
	done     map[string]int // acts that succeeded
	faults   []string
}

// A keySet is the keys of a bundle by kid.
type keySet map[string]testkit.Key

// A change is a version that became the current one.
type change struct {
	version fleetkey.Version
	keys    keySet
	at      time.Time // at the latest
}

// A token is one that was signed; knew is what its issuer worked with.
type token struct {
	raw  string
	exp  time.Time
	knew fleetkey.Version
}

// A verdict is what an instance said of a token.
type verdict struct {
	token      *token
	begin, end time.Time
	knew       fleetkey.Version // what the verifier worked with at the begin
	loads      [2]time.Time     // begins of its last good loads, the last one second
	err        error
}

func newHistory() *history {
	return &history{stored: map[fleetkey.Version]keySet{}, asked: map[string]bool{}, done: map[string]int{}}
}

// faulty notes what must not happen. The caller holds mu.
func (h *history) faulty(format string, args ...any) {
	if len(h.faults) < 10 {
		h.faults = append(h.faults, fmt.Sprintf(format, args...))
	}
}

// served is the server's watcher: it follows the secret by what was granted.
func (h *history) served(action string, request, reply []byte) {
	var in struct {
		SecretString, VersionStage, MoveToVersionId, RemoveFromVersionId string
		VersionStages                                                    []string
	}
	var out struct{ VersionId fleetkey.Version }
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := errors.Join(json.Unmarshal(request, &in), json.Unmarshal(reply, &out)); err != nil {
		h.faulty("%s: %v", action, err)
		return
	}
	switch action {
	case "CreateSecret", "PutSecretValue":
		if h.stored[out.VersionId] == nil { // not one repeated
			keys, err := parse([]byte(in.SecretString))
			if err != nil {
				h.faulty("version %s is no bundle: %v", out.VersionId, err)
			}
			h.stored[out.VersionId] = keys
			h.puts = append(h.puts, time.Now())
			if action == "CreateSecret" {
				h.change(out.VersionId)
			}
		}
		if action == "PutSecretValue" && (len(in.VersionStages) == 0 || slices.Contains(in.VersionStages, "AWSCURRENT")) {
			h.faulty("PutSecretValue made a version current without a comparison")
		}
	case "UpdateSecretVersionStage":
		if in.VersionStage != "AWSCURRENT" || in.RemoveFromVersionId != string(h.current()) {
			h.faulty("%s moved from %s, which was not current", in.VersionStage, in.RemoveFromVersionId)
		}
		h.change(fleetkey.Version(in.MoveToVersionId))
	}
}

// now is current for callers that do not hold mu.
func (h *history) now() fleetkey.Version {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current()
}

func (h *history) current() fleetkey.Version {
	if len(h.chain) == 0 {
		return ""
	}
	return h.chain[len(h.chain)-1].version
}

// change notes that a version has become the current one, and judges the step.
func (h *history) change(v fleetkey.Version) {
	next := change{v, h.stored[v], time.Now()}
	if h.place(v) >= 0 || next.keys == nil {
		h.faulty("version %s became current twice, or was never stored", v)
		return
	}
	if len(h.chain) > 0 {
		h.step(h.chain[len(h.chain)-1].keys, next)
	} else if len(next.keys) != 1 {
		h.faulty("%d keys in the first version", len(next.keys))
	}
	h.chain = append(h.chain, next)
}

// step judges one change: no key may be lost but by a revocation or at the end
// of its trust, and none may come but one that is announced or has to replace one.
func (h *history) step(before keySet, next change) {
	rotation := policy.Rotation
	revoked := false
	for kid, k := range before {
		now, kept := next.keys[kid]
		takeOver := before.takeOver(k)
		end := k.NotAfter
		if k.Signs() && !takeOver.IsZero() && takeOver.Add(rotation.Retain).Before(end) {
			end = takeOver.Add(rotation.Retain)
		}
		switch {
		case !kept && h.asked[kid]:
			revoked = true
		case !kept && next.at.Add(slack).Before(end):
			h.faulty("version %s lost key %s, which was trusted until %s", next.version, kid, end)
		case kept && k.Signs() && !now.Signs() && (takeOver.IsZero() || next.at.Add(slack).Before(takeOver)):
			h.faulty("version %s lost the private half of %s, which still had to sign", next.version, kid)
		}
	}
	made := 0
	for kid, k := range next.keys {
		if _, known := before[kid]; known {
			continue
		}
		made++
		atOnce := !k.NotBefore.After(next.at)
		switch {
		case made > 1 || !k.Signs():
			h.faulty("version %s brought more than one key, or one without its private half: %s", next.version, kid)
		case revoked && atOnce:
		case atOnce || k.NotBefore.Before(next.at.Add(rotation.Announce-slack)):
			h.faulty("version %s brought key %s, announced for %s only", next.version, kid, k.NotBefore.Sub(next.at))
		}
	}
}

// takeOver returns when the next key with a private half takes over from k.
func (b keySet) takeOver(k testkit.Key) (at time.Time) {
	for _, other := range b {
		if other.Signs() && other.NotBefore.After(k.NotBefore) && (at.IsZero() || other.NotBefore.Before(at)) {
			at = other.NotBefore
		}
	}
	return at
}

func parse(bundle []byte) (keySet, error) {
	keys, err := testkit.Keys(bundle)
	b := keySet{}
	for _, k := range keys {
		b[k.ID] = k
	}
	return b, err
}

// acted notes how an act on the store went. Its error has to name the secret and
// the cause.
func (h *history) acted(what string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		h.done[what]++
		return
	}
	text := err.Error()
	caused := func(cause string) bool { return strings.Contains(text, cause) }
	switch {
	case errors.Is(err, fleetkey.ErrUnknownKey), errors.Is(err, fleetkey.ErrClosed): // by Revoke and by restart
	case !caused("AWS secret " + secretName + " in "):
		h.faulty("%s: the error does not name the secret: %v", what, err)
	case !slices.ContainsFunc([]string{
		"throttles", "HTTP status 5", "no answer within", "cannot be reached", "broke off", "not one of Secrets Manager", "have expired",
		"does not accept the credentials", "allow secretsmanager:", "KMS key", "another writer saved first", "others have parked a version", "no key bundle exists",
	}, caused):
		h.faulty("%s: the error does not tell the cause: %v", what, err)
	}
}

// judge looks at all verdicts, now that the whole history is known.
func (h *history) judge(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.verdicts {
		h.judgeOne(v)
	}
	for i, at := range h.puts {
		if last := i + 99; last < len(h.puts) && h.puts[last].Sub(at) < testkit.Day {
			h.faulty("100 versions within a day")
			break
		}
	}
	for _, fault := range h.faults {
		t.Error(fault)
	}
	t.Logf("%d versions, %d verdicts, done %v", len(h.chain), len(h.verdicts), h.done)
}

// judgeOne judges by the versions that the verifier may have worked with: those
// from the one before it began to the last one before it answered.
func (h *history) judgeOne(v verdict) {
	kid := testkit.KeyID(v.token.raw)
	from, to := h.place(v.knew), 0
	if from < 0 || h.place(v.token.knew) < 0 {
		h.faulty("an instance worked with version %q or %q, which never was current", v.knew, v.token.knew)
	}
	for i, c := range h.chain {
		if c.at.Before(v.loads[0]) && i > from {
			h.faulty("a version of %s was read twice at %s and not adopted", c.at, v.loads)
		}
		if !c.at.After(v.end) {
			to = i
		}
	}
	always, sometime := true, false
	for _, c := range h.chain[max(from, 0) : to+1] {
		_, has := c.keys[kid]
		always, sometime = always && has, sometime || has
	}
	expired := !v.end.Before(v.token.exp)
	leeway := 2 * policy.ClockSkew // and a clock that is off
	switch {
	case v.err == nil && !sometime:
		h.faulty("%s: accepted a token of key %s, which was not in the set", v.begin, kid)
	case v.err == nil && v.begin.After(v.token.exp.Add(leeway+time.Second)):
		h.faulty("%s: accepted a token that had ended at %s", v.begin, v.token.exp)
	case v.err == nil || expired:
	case !errors.Is(v.err, fleetkey.ErrUnknownKey):
		h.faulty("%s: refused a token: %v", v.begin, v.err)
	case always:
		h.faulty("%s: refused a token of key %s, which it had: %v", v.begin, kid, v.err)
	case h.asked[kid] && h.chain[to].keys[kid].ID == "": // revoked by then
	case h.atOnce(kid): // it replaces a revoked key, and is not read yet
	case v.begin.Sub(v.loads[1]) > longestOutage:
	default:
		h.faulty("%s: refused a token of key %s, which it should have: %v", v.begin, kid, v.err)
	}
}

// place returns the place of a version in the chain, or -1.
func (h *history) place(v fleetkey.Version) int {
	return slices.IndexFunc(h.chain, func(c change) bool { return c.version == v })
}

// atOnce reports whether a key has signed from its first version on.
func (h *history) atOnce(kid string) bool {
	for _, c := range h.chain {
		if k, has := c.keys[kid]; has {
			return !k.NotBefore.After(c.at)
		}
	}
	return false
}
