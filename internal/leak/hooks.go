package leak

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// This file makes every Go program that is built record its private keys, and
// what it prints, without a line in the program: the go command puts changed
// copies of a few files of the standard library in the place of the originals
// ("go help build", -overlay).

//go:embed leaklog.go.txt
var leaklog string

// A hook is a call of package leaklog after a text that occurs once in a file of
// the standard library.
type hook struct{ file, after, call string }

// All private keys of the three kinds come through here when they are made or
// read, but for an EC key that is put together from its numbers, as readers of
// JWKs do; [Shape] knows how those look. So does what others may see of a program
// and a test may keep for itself: what children print, what goes to any log, also
// one that discards it, and errors.
var hooks = []hook{
	{"crypto/ecdsa/ecdsa.go", "func privateKeyFromFIPS(curve elliptic.Curve, priv *ecdsa.PrivateKey) (*PrivateKey, error) {\n",
		`leaklog.Key("EC", priv.Bytes())`},
	{"crypto/ed25519/ed25519.go", "func newKeyFromSeed(privateKey, seed []byte) {\n",
		`leaklog.Key("Ed25519", seed)`},
	{"crypto/rsa/rsa.go", "	N, e, d, p, q, dP, dQ, qInv := k.Export()\n",
		`leaklog.Key("RSA", d, p, q)`},
	{"crypto/rsa/rsa.go", "errors.New(\"crypto/rsa: missing private exponent\")\n	}\n",
		`if len(priv.Primes) > 1 && priv.Primes[0] != nil && priv.Primes[1] != nil {
			leaklog.Key("RSA", priv.D.Bytes(), priv.Primes[0].Bytes(), priv.Primes[1].Bytes())
		}`},
	{"os/file.go", "func (f *File) Write(b []byte) (n int, err error) {\n",
		`if f == Stdout || f == Stderr {
			defer leaklog.Output(b)
		}`},
	{"fmt/errors.go", "func Errorf(format string, a ...any) (err error) {\n",
		`if leaklog.Ours() {
			defer func() { leaklog.Error(err) }()
		}`},
	{"log/slog/logger.go", "func (l *Logger) log(ctx context.Context, level Level, msg string, args ...any) {\n",
		`leakRecord := NewRecord(time.Time{}, level, msg, 0)
		leakRecord.Add(args...)
		_ = NewTextHandler(leaklog.Log{}, nil).Handle(context.Background(), leakRecord)`},
	{"log/slog/logger.go", "func (l *Logger) logAttrs(ctx context.Context, level Level, msg string, attrs ...Attr) {\n",
		`leakRecord := NewRecord(time.Time{}, level, msg, 0)
		leakRecord.AddAttrs(attrs...)
		_ = NewTextHandler(leaklog.Log{}, nil).Handle(context.Background(), leakRecord)`},
	{"log/slog/logger.go", "	c.handler = l.handler.WithAttrs(argsToAttrSlice(args))\n",
		`_ = NewTextHandler(leaklog.Log{}, nil).WithAttrs(argsToAttrSlice(args)).Handle(context.Background(), NewRecord(time.Time{}, LevelInfo, "with", 0))`},
	{"os/exec_posix.go", "	sysattr.Files = make([]uintptr, 0, len(attr.Files))\n",
		`sysattr.Env = leaklog.Environ(sysattr.Env)`},
}

// A Record is a folder in which processes record their keys and what they print.
type Record struct{ dir string }

// NewRecord makes the folder dir into a record. Every user may write there, since
// tests also run processes as somebody else.
func NewRecord(dir string) (*Record, error) {
	r := &Record{dir}
	for _, name := range []string{r.Keys(), r.Output()} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			return nil, err
		}
		if err := os.Chmod(name, 0o622); err != nil { //nolint:gosec // whatever the umask
			return nil, err
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // it is a temporary one
		return nil, err
	}
	return r, r.writeOverlay()
}

// Keys is the file with the private keys; see [Detector.HideRecord].
func (r *Record) Keys() string { return filepath.Join(r.dir, "keys") }

// Output is the file with what Go programs have written to their standard output
// and standard error.
func (r *Record) Output() string { return filepath.Join(r.dir, "output") }

func (r *Record) overlay() string { return filepath.Join(r.dir, "overlay.json") }

// Environ returns env so that all programs that the go command builds in it
// record, and their children.
func (r *Record) Environ(env []string) []string {
	flags := ""
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "GOFLAGS="); ok {
			flags = value + " "
		}
	}
	return append(slices.Clone(env), "GOFLAGS="+flags+"-overlay="+r.overlay(), variable+"="+r.dir)
}

// variable names the folder to the hooks; leaklog.go.txt has it too.
const variable = "FLEETKEY_LEAK_LOG"

// writeOverlay makes the changed copies from the installed Go.
func (r *Record) writeOverlay() error {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(out)), "src")
	texts := map[string]string{"internal/testlog/leaklog.go": strings.ReplaceAll(leaklog, "GOROOT", filepath.Dir(src))} // vet wants a folder that is there
	for _, h := range hooks {
		text, changed := texts[h.file]
		if !changed {
			original, err := os.ReadFile(filepath.Join(src, h.file))
			if err != nil {
				return err
			}
			text = strings.Replace(string(original), "\nimport ", "\nimport leaklog \"internal/testlog\"\nimport ", 1)
		}
		if strings.Count(text, h.after) != 1 {
			return fmt.Errorf("%s of this Go has no single %q: adapt the hooks of package leak", h.file, h.after)
		}
		texts[h.file] = strings.Replace(text, h.after, h.after+h.call+"\n", 1)
	}
	replace := map[string]string{}
	for file, text := range texts {
		changed := filepath.Join(r.dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return err
		}
		replace[filepath.Join(src, file)] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return err
	}
	return os.WriteFile(r.overlay(), overlay, 0o600)
}
