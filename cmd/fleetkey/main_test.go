package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/gofrs/flock"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/moto"
)

// The scripts in testdata run the program itself. Those in script run twice, on
// a file and on moto, with the store in $KIND $KEYS; those in file and fake
// need the one or the other.

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fleetkey": main, "fixture": fixture})
}

func params(t *testing.T, dir string, setup func(*testscript.Env) error) testscript.Params {
	t.Helper()
	return testscript.Params{
		Dir:                 filepath.Join("testdata", dir),
		RequireExplicitExec: true,
		Setup:               setup,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"capture": capture, "exits": exits, "secretless": secretless, "hold": hold,
		},
		Condition: condition,
	}
}

// condition knows [root], and [missing:PROGRAM] and [missing:mounts], which are errors
// where FLEETKEY_REQUIRE=1 asks for everything.
func condition(name string) (bool, error) {
	program, found := strings.CutPrefix(name, "missing:")
	if !found {
		return name == "root" && os.Geteuid() == 0, nil
	}
	_, err := exec.LookPath(program)
	if program == "mounts" {
		err = exec.Command("unshare", "-m", "mount", "--bind", "/", "/").Run()
	}
	if os.Getenv("FLEETKEY_REQUIRE") != "1" {
		return err != nil, nil
	}
	return false, err
}

func onFile(e *testscript.Env) error {
	e.Vars = append(e.Vars, "KIND=--file", "KIND2=-file", "SETTING=OpenIDServerSigningSettings__File__Path", "KEYS="+filepath.Join(e.WorkDir, "keys", "keys.pem"))
	return nil
}

// awsEnv is what the SDK needs to find a server on this machine.
func awsEnv(e *testscript.Env, url string) {
	e.Vars = append(e.Vars, "AWS_ENDPOINT_URL_SECRETS_MANAGER="+url, "AWS_REGION="+awsfake.Region,
		"AWS_ACCESS_KEY_ID=AKIDTEST", "AWS_SECRET_ACCESS_KEY=secret-of-the-test", "AWS_EC2_METADATA_DISABLED=true",
		"KIND=--secret", "KIND2=-secret", "SETTING=OpenIDServerSigningSettings__AwsSecretManager__SecretName",
		"KEYS=cli/"+strings.ToLower(filepath.Base(e.WorkDir))+"/of_"+strings.ReplaceAll(filepath.Base(filepath.Dir(e.WorkDir)), "-", "_"))
}

func TestOnFile(t *testing.T)   { testscript.Run(t, params(t, "script", onFile)) }
func TestFileOnly(t *testing.T) { testscript.Run(t, params(t, "file", onFile)) }

func TestOnMoto(t *testing.T) {
	url := moto.URL(t)
	testscript.Run(t, params(t, "script", func(e *testscript.Env) error {
		awsEnv(e, url)
		return nil
	}))
}

// TestIssuer checks tokens of an issuer whose keys are not at hand.
func TestIssuer(t *testing.T) {
	testscript.Run(t, params(t, "issuer", func(e *testscript.Env) error {
		url, tokens := startIssuer(e.T().(testing.TB))
		e.Vars = append(e.Vars, "ISSUER="+url)
		for name, token := range tokens {
			write(filepath.Join(e.WorkDir, name), []byte(token))
		}
		return nil
	}))
}

// TestOnFake runs what moto cannot do: policies with resources, deletion, a
// clock that is wrong.
func TestOnFake(t *testing.T) {
	p := params(t, "fake", nil)
	p.Setup = func(e *testscript.Env) error {
		server := awsfake.Start(e.T().(testing.TB))
		e.Values[fakeKey{}] = server
		awsEnv(e, server.URL)
		e.Vars = append(e.Vars, "WRONGCLOCK="+wrongClock(e.T().(testing.TB), server))
		return nil
	}
	p.Cmds["enforce"] = func(ts *testscript.TestScript, _ bool, args []string) {
		server := fake(ts)
		if len(args) == 0 {
			server.Enforce(nil)
			return
		}
		policy := &awsfake.Policy{BareNames: args[0] == "bare"}
		for _, word := range strings.Split(ts.ReadFile(args[1]), `"`) {
			switch {
			case strings.HasPrefix(word, "secretsmanager:"):
				policy.Actions = append(policy.Actions, word)
			case word == "*", strings.HasPrefix(word, "arn:"):
				policy.Resources = append(policy.Resources, word)
			}
		}
		server.Enforce(policy)
	}
	p.Cmds["inject"] = func(ts *testscript.TestScript, _ bool, args []string) {
		server := fake(ts)
		server.Heal()
		if len(args) > 0 {
			refused := awsfake.Fault{Error: &awsfake.Error{Code: "AccessDenied", Message: "no"}}
			fault := map[string]awsfake.Fault{"kms": awsfake.KMSDenied(""), "expired": awsfake.Expired(), "refused": refused}[args[0]]
			fault.Action = args[1]
			server.Inject(fault)
		}
	}
	p.Cmds["lax"] = func(ts *testscript.TestScript, _ bool, _ []string) { fake(ts).Lax() }
	p.Cmds["container"] = func(ts *testscript.TestScript, _ bool, args []string) {
		_, err := fake(ts).Client().CreateSecret(context.Background(), &secretsmanager.CreateSecretInput{Name: &args[0]})
		ts.Check(err)
	}
	p.Cmds["fill"] = func(ts *testscript.TestScript, _ bool, args []string) {
		value := ts.ReadFile(args[1])
		_, err := fake(ts).Client().PutSecretValue(context.Background(), &secretsmanager.PutSecretValueInput{SecretId: &args[0], SecretString: &value})
		ts.Check(err)
	}
	p.Cmds["versions"] = func(ts *testscript.TestScript, _ bool, args []string) {
		if n := fake(ts).Versions(args[0]); strconv.Itoa(n) != args[1] {
			ts.Fatalf("%d versions of %s, not %s", n, args[0], args[1])
		}
	}
	p.Cmds["delete"] = func(ts *testscript.TestScript, _ bool, args []string) {
		_, err := fake(ts).Client().DeleteSecret(context.Background(), &secretsmanager.DeleteSecretInput{SecretId: &args[0]})
		ts.Check(err)
	}
	testscript.Run(t, p)
}

type fakeKey struct{}

// fake returns the AWS of a script.
func fake(ts *testscript.TestScript) *awsfake.Server { return ts.Value(fakeKey{}).(*awsfake.Server) }

// capture VAR REGEXP sets a variable to the first match in stdout, of the group
// if there is one.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if found == nil {
		ts.Fatalf("%q is not in stdout:\n%s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], found[len(found)-1])
}

// exits STATUS PROGRAM ARG... runs a program that has to end with a status.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	status := 0
	err := ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		status = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("exit status %d, not %s\n%s%s", status, args[0], ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// secretless FILE... fails if the last command has printed a line of these files.
func secretless(ts *testscript.TestScript, _ bool, args []string) {
	printed := ts.ReadFile("stdout") + ts.ReadFile("stderr")
	for _, file := range args {
		for line := range strings.Lines(ts.ReadFile(file)) {
			if line = strings.TrimSpace(line); len(line) > 15 && strings.Contains(printed, line) {
				ts.Fatalf("the command has printed a line of %s", file)
			}
		}
	}
	if strings.Contains(printed, "PRIVATE KEY--") {
		ts.Fatalf("the command has printed a private key")
	}
}

// hold LOCK holds a lock until the script ends.
func hold(ts *testscript.TestScript, _ bool, args []string) {
	lock := flock.New(ts.MkAbs(args[0]))
	ts.Check(lock.Lock())
	ts.Defer(func() { _ = lock.Close() })
}

// run runs fleetkey in this process. It returns the exit status and what was printed.
func run(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, said bytes.Buffer
	a := &app{ctx: ctx, stdin: os.Stdin, stdout: &out, stderr: &said, log: slog.New(slog.DiscardHandler)}
	status = a.run(args)
	return status, out.String(), said.String()
}

// T9: what others choose is quoted, or escaped, before it gets to a terminal.
func TestOutputIsQuoted_T9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.pem")
	signerAt(fleetkey.NewFileStore(path), time.Now())
	const hostile = "x\nlevel=INFO\x1b[2J\u202e"
	for _, args := range [][]string{
		{"revoke", hostile, "--file", path}, {"status", "--file", path + hostile}, {hostile},
		{"import", path + hostile, "--file", path}, {"revoke", "--certificate", path + hostile, "--file", path},
	} {
		status, out, said := run(t.Context(), args...)
		unprintable := func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }
		if status == 0 || out != "" || strings.Contains(said, "\nlevel") || strings.ContainsFunc(said, unprintable) {
			t.Errorf("%q: exit status %d, prints %q", args, status, said)
		}
	}
}

// Anyone can sign with the keys of fleetkeytest.
func TestDoctorKnowsTheTestKeys(t *testing.T) {
	files := must(filepath.Glob("../../fleetkeytest/testdata/*.pem"))
	if len(files) != len(testKeys) {
		t.Errorf("%d keys are published, and %d known", len(files), len(testKeys))
	}
	for _, file := range files {
		path := filepath.Join(t.TempDir(), "keys.pem")
		write(path, must(os.ReadFile(file)))
		status, out, _ := run(t.Context(), "doctor", "--file", path)
		if status != exitWrong || strings.Count(out, "WRONG") != 1 || !strings.Contains(out, "is a published test key") || !strings.Contains(out, "run: fleetkey revoke ") {
			t.Errorf("%s: exit status %d\n%s", file, status, out)
		}
	}
}

// A question at the terminal ends with Ctrl-C, although nobody has answered.
func TestInterruptedQuestion(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	answer := make(chan string)
	defer close(answer) // lets the reader go
	_, err := await(ctx, func() (string, error) {
		interrupt()
		return <-answer, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	// What doctor has found by then says nothing.
	status, _, said := run(ctx, "doctor", "--file", filepath.Join(t.TempDir(), "keys.pem"), "--read-only")
	if status != exitFailed || !strings.HasPrefix(said, "fleetkey: interrupted: ") {
		t.Errorf("exit status %d: %s", status, said)
	}
}

// TestJSON: with --json each command prints one JSON value, and a store in the same shape.
func TestJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	decode := func(into any, want int, args ...string) string {
		t.Helper()
		status, out, said := run(t.Context(), append(args, "--json")...)
		decoder := json.NewDecoder(strings.NewReader(out))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(into); err != nil || decoder.More() || status != want {
			t.Fatalf("%q: exit status %d: %s: %v in %s", args, status, said, err, out)
		}
		return out
	}
	kid := ""
	for _, step := range []struct {
		args, changed, roles string
	}{
		{"init --file a.pem --issuer https://id.example.com --algorithm ES256", "true", "signing"},
		{"init --file a.pem --issuer https://id.example.com", "false", "signing"},
		{"status --file a.pem", "", "signing"},
		{"rotate --file a.pem --yes", "true", "announced signing"},
		{"rotate --file a.pem --yes", "false", "announced signing"},
		{"export --file a.pem", "", "announced signing"},
		{"export --file a.pem --public-key --dir public", "", "announced signing"},
		{"export --file a.pem -o crt.pem", "", "announced signing"},
		{"export --file a.pem --private-keys -o all.pem", "", "announced signing"},
		{"copy --file a.pem --to-file b.pem", "true", "announced signing"},
		{"copy --file a.pem --to-file b.pem", "false", "announced signing"},
		{"import all.pem --file c.pem", "true", "announced signing"},
		{"import all.pem --file c.pem --yes", "false", "announced signing"},
		{"revoke KID --file a.pem --yes", "true", "announced signing revoked"},
		{"revoke KID --file a.pem --yes", "false", "announced signing revoked"},
	} {
		var got struct {
			Changed  *bool
			PEM      string
			Files    []string
			Word     string `json:"status"`
			Warnings []string
			fleetkey.Status
		}
		text := decode(&got, 0, strings.Fields(strings.Replace(step.args, "KID", kid, 1))...)
		changed, roles := "", ""
		if got.Changed != nil {
			changed = strconv.FormatBool(*got.Changed)
		}
		for _, k := range got.Keys {
			roles += " " + string(k.Role)
		}
		if exports := got.PEM != "" || len(got.Files) > 0; exports != strings.HasPrefix(step.args, "export") || got.Word != "ok" || changed != step.changed || strings.TrimSpace(roles) != step.roles || got.Version == "" || strings.Contains(text, "PRIVATE") {
			t.Errorf("%s: %s", step.args, text)
		}
		if kid == "" {
			kid = got.SigningKeyID
		}
	}
	var verdict verdictJSON
	if decode(&verdict, 3, "verify", "--file", "a.pem", "x.y.z"); verdict.Valid || len(verdict.Checks) != len(checks) || verdict.Error == "" {
		t.Errorf("%+v", verdict)
	}
	token := must(signerAt(fleetkey.NewFileStore("a.pem"), time.Now()).Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"}))
	if decode(&verdict, 0, "verify", "--file", "a.pem", token); !verdict.Valid || verdict.Subject != "alice" {
		t.Errorf("%+v", verdict)
	}
	var findings []findingJSON
	if decode(&findings, 3, "doctor", "--file", "none/a.pem", "--read-only"); len(findings) < 2 || findings[1].Verdict != wrong {
		t.Errorf("%+v", findings)
	}
	var policy iamPolicy
	decode(&policy, 0, "policy", "--region", "eu-west-1", "--account", "123456789012", "--secret", "a")
}

// Each command's help has examples, which the parser takes.
func TestExamples(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"signing.pfx", "tls.crt", "tls.key"} {
		write(name, nil)
	}
	for _, command := range newParser(&app{}).Model.Children {
		if !strings.Contains(command.Detail, "fleetkey "+command.Name+" ") {
			t.Errorf("the help of %s has no example", command.Name)
		}
	}
	for example := range strings.Lines(examples) {
		words := strings.Fields(regexp.MustCompile(" (<|>>) .*").ReplaceAllString(example, ""))
		if _, err := newParser(&app{}).Parse(words[1:]); err != nil {
			t.Errorf("%s: %v", example, err)
		}
	}
}
