package main

import (
	"bytes"
	"cmp"
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
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/awsfake"
	"github.com/fleetkey/fleetkey/internal/moto"
)

// The scripts in testdata run the program. Those in script run twice, on a file and on moto,
// and find the store in $KIND $KEYS. Those in file require a file; those in fake require the
// fake AWS.

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

// condition implements [root], [missing:PROGRAM] and [missing:mounts]. With
// FLEETKEY_REQUIRE=1, something missing is an error.
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

// awsEnv sets the variables that direct the SDK to a server on this machine.
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

// TestIssuer verifies tokens without a store, with the keys that an issuer publishes.
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

// TestOnFake tests what moto cannot do: policies with resources, deletion, a wrong clock.
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

// capture VAR REGEXP sets a variable to the first match in stdout, or to the last group of the
// match.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
	if found == nil {
		ts.Fatalf("%q is not in stdout:\n%s", args[1], ts.ReadFile("stdout"))
	}
	ts.Setenv(args[0], found[len(found)-1])
}

// exits STATUS PROGRAM ARG... runs a program that must exit with STATUS.
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

// secretless FILE... fails if the last command printed a private key or a line of a FILE.
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

// run runs fleetkey in this process and returns the exit status and the output.
func run(ctx context.Context, args ...string) (status int, stdout, stderr string) {
	var out, said bytes.Buffer
	a := &app{ctx: ctx, stdin: os.Stdin, stdout: &out, stderr: &said, log: slog.New(slog.DiscardHandler)}
	status = a.run(args)
	return status, out.String(), said.String()
}

// T9: foreign text is quoted or escaped before it is printed.
func TestOutputIsQuoted_T9(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.pem")
	signerAt(fleetkey.NewFileStore(path), time.Now())
	const hostile = "x\nlevel=INFO\x1b[2J\u202e"
	for _, args := range [][]string{
		{"revoke", hostile, "--file", path}, {"status", "--file", path + hostile}, {hostile},
		{"import", path + hostile, "--file", path}, {"revoke", "--certificate", path + hostile, "--file", path},
	} {
		status, out, said := run(t.Context(), args...)
		require.NotZero(t, status, args)
		require.Empty(t, out, args)
		require.NotContains(t, said, "\nlevel", args)
		require.True(t, isPrintable(said), "%q prints %q", args, said)
	}
}

func isPrintable(lines string) bool {
	return !strings.ContainsFunc(lines, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
}

// doctor must report the test keys, since anyone can sign with them.
func TestDoctorKnowsTheTestKeys(t *testing.T) {
	files := must(filepath.Glob("../../fleetkeytest/testdata/*.pem"))
	require.Len(t, files, len(testKeys))
	for _, file := range files {
		path := filepath.Join(t.TempDir(), "keys.pem")
		write(path, must(os.ReadFile(file)))
		status, out, _ := run(t.Context(), "doctor", "--file", path)
		require.Equal(t, exitWrong, status, file)
		require.Equal(t, 1, strings.Count(out, "WRONG"), out)
		require.Regexp(t, "is a published test key.*\n +run: fleetkey revoke ", out)
	}
}

// When doctor is interrupted, its findings so far mean nothing.
func TestInterruptedDoctor(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	status, _, said := run(ctx, "doctor", "--file", filepath.Join(t.TempDir(), "keys.pem"), "--read-only")
	require.Equal(t, exitFailed, status)
	require.Regexp(t, "^fleetkey: interrupted: ", said)
}

// TestJSON: with --json each command prints one JSON value; a store always has the same form.
func TestJSON(t *testing.T) {
	t.Chdir(t.TempDir())
	decode := func(into any, want int, args ...string) string {
		t.Helper()
		status, out, said := run(t.Context(), append(args, "--json")...)
		require.Equal(t, want, status, "%q: %s", args, said)
		decoder := json.NewDecoder(strings.NewReader(out))
		decoder.DisallowUnknownFields()
		require.NoError(t, decoder.Decode(into), "%q: %s", args, out)
		require.False(t, decoder.More(), "%q: %s", args, out)
		return out
	}
	kid := ""
	yes, no := true, false
	for _, step := range []struct {
		args    string
		changed *bool
		roles   string
	}{
		{"init --file a.pem --issuer https://id.example.com --algorithm ES256", &yes, "signing"},
		{"init --file a.pem --issuer https://id.example.com", &no, "signing"},
		{"status --file a.pem", nil, "signing"},
		{"rotate --file a.pem --yes", &yes, "announced signing"},
		{"rotate --file a.pem --yes", &no, "announced signing"},
		{"export --file a.pem", nil, "announced signing"},
		{"export --file a.pem --public-key --dir public", nil, "announced signing"},
		{"export --file a.pem -o crt.pem", nil, "announced signing"},
		{"export --file a.pem --private-keys -o all.pem", nil, "announced signing"},
		{"copy --file a.pem --to-file b.pem", &yes, "announced signing"},
		{"copy --file a.pem --to-file b.pem", &no, "announced signing"},
		{"import all.pem --file c.pem", &yes, "announced signing"},
		{"import all.pem --file c.pem --yes", &no, "announced signing"},
		{"revoke KID --file a.pem --yes", &yes, "announced signing revoked"},
		{"revoke KID --file a.pem --yes", &no, "announced signing revoked"},
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
		var roles []string
		for _, k := range got.Keys {
			roles = append(roles, string(k.Role))
		}
		require.Equal(t, step.changed, got.Changed, step.args)
		require.Equal(t, step.roles, strings.Join(roles, " "), step.args)
		require.Equal(t, strings.HasPrefix(step.args, "export"), got.PEM != "" || len(got.Files) > 0, text)
		require.True(t, got.Word == "ok" && got.Version != "" && !strings.Contains(text, "PRIVATE"), text)
		kid = cmp.Or(kid, got.SigningKeyID)
	}
	var verdict verdictJSON
	decode(&verdict, exitWrong, "verify", "--file", "a.pem", "x.y.z")
	require.True(t, !verdict.Valid && len(verdict.Checks) == len(checks) && verdict.Error != "", "%+v", verdict)
	token := must(signerAt(fleetkey.NewFileStore("a.pem"), time.Now()).Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web"}))
	decode(&verdict, 0, "verify", "--file", "a.pem", token)
	require.True(t, verdict.Valid && verdict.Subject == "alice", "%+v", verdict)
	var findings []findingJSON
	decode(&findings, exitWrong, "doctor", "--file", "none/a.pem", "--read-only")
	require.Equal(t, wrong, findings[1].Verdict)
	decode(&iamPolicy{}, 0, "policy", "--region", "eu-west-1", "--account", "123456789012", "--secret", "a")
}

// Each command is on the page, and its help has examples that the parser accepts.
func TestExamples(t *testing.T) {
	page := string(must(os.ReadFile("../../docs/cli.md")))
	t.Chdir(t.TempDir())
	for _, name := range []string{"signing.pfx", "tls.crt", "tls.key"} {
		write(name, nil)
	}
	for _, command := range newParser(&app{}).Model.Children {
		require.Contains(t, page, "$ fleetkey "+command.Name+" ")
		require.Contains(t, command.Detail, "fleetkey "+command.Name+" ")
	}
	for example := range strings.Lines(examples) {
		words := strings.Fields(regexp.MustCompile(" (<|>>) .*").ReplaceAllString(example, ""))
		_, err := newParser(&app{}).Parse(words[1:])
		require.NoError(t, err, example)
	}
}
