// Package appsettings reads one section of an appsettings.json as .NET does, and the
// environment variables that override it. The file is UTF-8 with or without a byte order
// mark. Comments and trailing commas are allowed. Names are not case-sensitive. They can be
// nested or joined by colons.
//
// It keeps the position of every value for error messages, and never quotes the file, since
// settings contain passwords.
package appsettings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tailscale/hujson"
)

// Limits of a settings file. A mebibyte of brackets would overflow the stack of the JSON
// parser, which is recursive and has no limit.
const (
	maxSize  = 1 << 20
	maxParts = 50_000 // objects and arrays
)

// A Setting is one value of the section, or an empty section.
type Setting struct {
	Name  string // its path as written
	Place string // "appsettings.json:12" or "environment variable X"
	Value string
	Kind  hujson.Kind // of the JSON value; '{' is an empty section
}

// Shown returns the name for an error, unless it is not a valid name and may be part of a
// secret.
func (s Setting) Shown() string {
	if len(s.Name) > 100 {
		return fmt.Sprintf("(a name of %d bytes)", len(s.Name))
	}
	return strconv.Quote(s.Name)
}

func (s Setting) notText() error {
	return fmt.Errorf("%s: %s contains invalid UTF-8, half of a surrogate pair, or a NUL", s.Place, s.Shown())
}

// Settings holds the section's values by their path in lower case.
type Settings map[string]Setting

// inSection reports whether path is section or below it.
func inSection(path, section string) bool {
	path, section = strings.ToLower(path), strings.ToLower(section)
	return path == section || strings.HasPrefix(path, section+":")
}

// add rejects a duplicate path, as .NET does, and a value that would change on its way to a
// file system or to AWS.
func (set Settings) add(s Setting) error {
	if !utf8.ValidString(s.Value) || strings.Contains(s.Value, "\x00") {
		return s.notText()
	}
	key := strings.ToLower(s.Name)
	if first, ok := set[key]; ok {
		return fmt.Errorf("%s: %s is set twice, first at %s", s.Place, s.Shown(), first.Place)
	}
	set[key] = s
	return nil
}

// Value returns the value at a path, or "".
func (set Settings) Value(name string) string { return set[strings.ToLower(name)].Value }

// Under returns a setting and everything below it, ordered by path, so that equal settings
// always give the same error.
func (set Settings) Under(name string) []Setting {
	var found []Setting
	for _, key := range slices.Sorted(maps.Keys(set)) {
		if inSection(key, name) {
			found = append(found, set[key])
		}
	}
	return found
}

// Read reads a section of a settings file, unless file is empty, and of the environment,
// which takes precedence. It also returns the file's absolute directory. Links are not
// resolved: in Kubernetes a mounted file is a link into a directory whose name changes with
// each update.
func Read(section, file string, environ []string) (Settings, string, error) {
	set, dir := Settings{}, ""
	if file != "" {
		abs, err := filepath.Abs(file)
		if err != nil {
			return nil, "", err
		}
		dir = filepath.Dir(abs)
		text, err := readLimited(file)
		if err != nil {
			return nil, "", err
		}
		if set, err = Parse(section, file, text); err != nil {
			return nil, "", err
		}
	}
	env, err := Environ(section, environ)
	if err != nil {
		return nil, "", err
	}
	maps.Copy(set, env)
	return set, dir, nil
}

func readLimited(file string) ([]byte, error) {
	info, err := os.Stat(file) // opening a device can have side effects
	if err := requireRegular(file, info, err); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_RDONLY|noWait, 0) // it may have become a FIFO
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err = f.Stat()
	if err := requireRegular(file, info, err); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(text) > maxSize {
		err = fmt.Errorf("%s: larger than %d bytes", file, maxSize)
	}
	return text, err
}

func requireRegular(file string, info fs.FileInfo, err error) error {
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file (mode %s)", file, info.Mode())
	}
	return err
}

// Environ reads a section from environment variables, in whose names two underscores stand
// for a colon.
func Environ(section string, environ []string) (Settings, error) {
	set := Settings{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		path := strings.ReplaceAll(name, "__", ":")
		if !inSection(path, section) {
			continue
		}
		if err := set.add(Setting{path, "environment variable " + name, value, '"'}); err != nil {
			return nil, err
		}
	}
	return set, nil
}

// EnvName returns the environment variable of a path.
func EnvName(setting string) string { return strings.ReplaceAll(setting, ":", "__") }

// Parse reads a section from an appsettings.json.
func Parse(section, file string, text []byte) (Settings, error) {
	switch head := text[:min(4, len(text))]; { // JSON has no NUL
	case bytes.Contains(head, []byte("\x00\x00")):
		return nil, fmt.Errorf("%s: encoded in UTF-32: save it as UTF-8", file)
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")), bytes.Contains(head, []byte("\x00")):
		return nil, fmt.Errorf("%s: encoded in UTF-16: save it as UTF-8", file)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) > maxParts {
		return nil, fmt.Errorf("%s: more than %d objects and arrays", file, maxParts)
	}
	// In .NET, CR, LF, CR LF and the end of the file each end a line comment.
	text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte(" \n")), []byte("\r"), []byte("\n"))
	root, err := hujson.Parse(text)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		if again, err2 := hujson.Parse(append(bytes.Clone(text), '\n')); err2 == nil {
			root, err = again, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s%s", file, jsonProblem(err))
	}
	if root.Value.Kind() != '{' {
		return nil, fmt.Errorf("%s: not a JSON object", file)
	}
	r := reader{section, file, text, Settings{}}
	return r.set, r.walk("", root, 0)
}

type reader struct {
	section, file string
	text          []byte
	set           Settings
}

// walk collects the values and empty objects of the section. Like .NET it descends at most
// 64 levels.
func (r reader) walk(path string, v hujson.Value, depth int) error {
	if object, ok := v.Value.(*hujson.Object); ok && len(object.Members) > 0 {
		if depth++; depth > 64 {
			return fmt.Errorf("%s: nested more than 64 levels deep", r.place(v))
		}
		for _, m := range object.Members {
			text, notText := jsontext.AppendUnquote(nil, []byte(m.Name.Value.(hujson.Literal)))
			name := string(text)
			if depth > 1 {
				name = path + ":" + name
			}
			if notText != nil && inSection(name, r.section) {
				return Setting{Name: name, Place: r.place(m.Name)}.notText()
			}
			if err := r.walk(name, m.Value, depth); err != nil {
				return err
			}
		}
		return nil
	}
	if !inSection(path, r.section) {
		return nil
	}
	s := Setting{Name: path, Place: r.place(v), Kind: v.Value.Kind()}
	if literal, ok := v.Value.(hujson.Literal); ok && s.Kind == '"' {
		text, err := jsontext.AppendUnquote(nil, []byte(literal)) // literal.String would replace invalid text
		if err != nil {
			return s.notText()
		}
		s.Value = string(text)
	}
	return r.set.add(s)
}

func (r reader) place(v hujson.Value) string {
	return fmt.Sprintf("%s:%d", r.file, 1+bytes.Count(r.text[:v.StartOffset], []byte("\n")))
}

// jsonProblem returns where and why a file is not JSON. It omits the text that hujson
// quotes, which may be part of a password.
func jsonProblem(err error) string {
	var line, column int
	if _, scanErr := fmt.Sscanf(err.Error(), "hujson: line %d, column %d:", &line, &column); scanErr != nil {
		return ": not valid JSON"
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Sprintf(":%d:%d: not valid JSON: unexpected end", line, column)
	}
	return fmt.Sprintf(":%d:%d: not valid JSON", line, column)
}
