package awsfake

import (
	"bytes"
	"crypto/rand"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// From the API reference of Secrets Manager and its page of quotas.
const (
	maxVersions = 100
	keepVersion = 24 * time.Hour

	// remember is how long a state stays readable for [Server.Lag].
	remember = 2 * time.Hour

	current  = "AWSCURRENT"
	previous = "AWSPREVIOUS"

	arnPrefix = "arn:aws:secretsmanager:" + Region + ":" + Account + ":secret:"
)

var arnEnding = regexp.MustCompile(`-[A-Za-z0-9]{6}$`)

// A secret is never changed once it is in a history; a write adds a new one.
type secret struct {
	made, at time.Time // of the secret, and of this state
	arn      string
	name     string
	versions []version         // oldest first
	labels   map[string]string // label to version id: a label is on one version at most
	deleted  bool              // scheduled for deletion
}

type version struct {
	id      string
	text    *string
	binary  []byte
	created time.Time
}

// A history holds the states of one name that reads may still see, the current one
// last. A nil entry means that the secret was deleted permanently.
type history []*secret

// present returns the current state of a secret by name, or nil.
func (s *Server) present(name string) *secret {
	if h := s.secrets[name]; len(h) > 0 {
		return h[len(h)-1]
	}
	return nil
}

// find returns the current state of a secret by name, ARN, or ARN without the six
// characters.
func (s *Server) find(id string) *secret {
	name := strings.TrimPrefix(id, arnPrefix)
	if sec := s.present(name); sec != nil {
		return sec
	}
	if sec := s.present(arnEnding.ReplaceAllString(name, "")); sec != nil && sec.arn == id {
		return sec
	}
	return nil
}

// read returns the state that a read sees, which may be an old one.
func (s *Server) read(id string) *secret {
	sec := s.find(id)
	behind := s.behind()
	if sec == nil || behind == 0 {
		return sec
	}
	h := s.secrets[sec.name]
	for i := len(h) - 1; i >= 0; i-- {
		if h[i] == nil || !h[i].at.After(time.Now().Add(-behind)) {
			return h[i]
		}
	}
	return nil
}

// write makes a state the current one.
func (s *Server) write(sec *secret) {
	sec.at = time.Now()
	h := append(s.secrets[sec.name], sec)
	for len(h) > 2 && h[1] != nil && time.Since(h[1].at) > remember {
		h = slices.Delete(h, 0, 1)
	}
	s.secrets[sec.name] = h
}

// copy returns a copy that may be changed.
func (sec *secret) copy() *secret {
	c := *sec
	c.versions = slices.Clone(sec.versions)
	c.labels = maps.Clone(sec.labels)
	return &c
}

func (sec *secret) version(id string) *version {
	if i := slices.IndexFunc(sec.versions, func(v version) bool { return v.id == id }); i >= 0 {
		return &sec.versions[i]
	}
	return nil
}

// label moves a label to a version, and AWSPREVIOUS along with AWSCURRENT.
func (sec *secret) label(stage, id string) {
	if old := sec.labels[stage]; stage == current && old != "" && old != id {
		sec.labels[previous] = old
	}
	sec.labels[stage] = id
}

// add appends a version. Like AWS, it first removes the oldest unlabeled versions if there
// are too many and they are older than a day.
func (sec *secret) add(v version) *Error {
	labeled := slices.Collect(maps.Values(sec.labels))
	for len(sec.versions) >= maxVersions {
		i := slices.IndexFunc(sec.versions, func(v version) bool {
			return !slices.Contains(labeled, v.id) && time.Since(v.created) > keepVersion
		})
		if i < 0 {
			return errorf("LimitExceededException", "You have reached the quota for the number of versions of this secret.")
		}
		sec.versions = slices.Delete(sec.versions, i, i+1)
	}
	sec.versions = append(sec.versions, v)
	return nil
}

func (v *version) same(in *request) bool {
	if v.text != nil || in.SecretString != nil {
		return v.text != nil && in.SecretString != nil && *v.text == *in.SecretString
	}
	return bytes.Equal(v.binary, in.SecretBinary)
}

// Versions counts the versions of a secret by name, with and without labels.
func (s *Server) Versions(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sec := s.find(name); sec != nil {
		return len(sec.versions)
	}
	return 0
}

// newSuffix draws the six characters of an ARN.
func newSuffix() string { return rand.Text()[:6] }
