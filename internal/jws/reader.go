package jws

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A claimError describes an invalid claim of a well-formed payload.
type claimError struct{ text string }

func (e *claimError) Error() string { return e.text }

// A reader reads one JSON object and returns strings as parts of its text, without copying.
type reader struct {
	*jsontext.Decoder
	text string // the input of the Decoder
}

// eachMember calls f with the name of each member. f must read the value.
func (r reader) eachMember(f func(name string) error) error {
	if r.PeekKind() != '{' {
		return errors.New("not a JSON object")
	}
	if _, err := r.ReadToken(); err != nil {
		return err
	}
	for r.PeekKind() != '}' {
		name, err := r.next()
		if err != nil {
			return err
		}
		if err := f(name); err != nil {
			return err
		}
	}
	_, err := r.ReadToken()
	return err
}

func (r reader) readString() (string, error) {
	if r.PeekKind() != '"' {
		return "", &claimError{"a value is not a string"}
	}
	return r.next()
}

// next reads a string, or a name.
func (r reader) next() (string, error) {
	value, err := r.ReadValue()
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(value, '\\') >= 0 {
		unquoted, err := jsontext.AppendUnquote(nil, value)
		return string(unquoted), err
	}
	end := int(r.InputOffset())
	return r.text[end-len(value)+1 : end-1], nil
}

// readStrings reads a string or an array of strings (RFC 7519 section 4.1.3).
func (r reader) readStrings() ([]string, error) {
	switch r.PeekKind() {
	case '"':
		one, err := r.readString()
		return []string{one}, err
	case '[':
	default:
		return nil, &claimError{"a claim is neither a string nor an array of strings"}
	}
	if _, err := r.ReadToken(); err != nil {
		return nil, err
	}
	var names []string
	for r.PeekKind() != ']' {
		name, err := r.readString()
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	_, err := r.ReadToken()
	return names, err
}

// readScope reads a scope claim (RFC 8693 section 4.2). IdentityServer writes an array of
// scopes.
func (r reader) readScope() (string, error) {
	if r.PeekKind() == '"' {
		return r.readString()
	}
	scopes, err := r.readStrings()
	for _, scope := range scopes {
		if scope == "" || strings.Contains(scope, " ") {
			return "", &claimError{"a scope is empty or contains a space"}
		}
	}
	return strings.Join(scopes, " "), err
}

// readFormerScope reads scp, which is not one of our claims, so an invalid value is
// ignored.
func (r reader) readFormerScope() (string, error) {
	value, err := r.ReadValue()
	if err != nil {
		return "", err
	}
	var one string
	var many []string
	if json.Unmarshal(value, &one) == nil {
		return one, nil
	}
	if json.Unmarshal(value, &many) == nil && !slices.ContainsFunc(many, func(scope string) bool { return strings.Contains(scope, " ") }) {
		return strings.Join(many, " "), nil
	}
	return "", nil
}

// maxTime is 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const maxTime = 253402300799

// InRange reports whether a time can be written as a claim and read back.
func InRange(t time.Time) bool { return t.Unix() >= 0 && t.Unix() <= maxTime }

// readTime reads a NumericDate (RFC 7519 section 2): seconds since 1970, with
// or without a fraction.
func (r reader) readTime() (time.Time, error) {
	if r.PeekKind() != '0' {
		return time.Time{}, &claimError{"a time is not a number"}
	}
	value, err := r.ReadValue()
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseFloat(string(value), 64)
	if err != nil || !(seconds >= 0 && seconds <= maxTime) {
		return time.Time{}, &claimError{"a time is not between 1970 and 9999"}
	}
	whole, fraction := math.Modf(seconds)
	return time.Unix(int64(whole), int64(fraction*1e9)), nil
}
