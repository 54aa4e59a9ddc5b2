package main

import "slices"

// A client is a library that verifies tokens, written by others and used as its
// own documentation says.
type client struct {
	name, version, language string
	// lacks names the algorithms that the client does not know. It must refuse them.
	lacks []string
	// verify shows a token to one of the client's verifiers. An error means that the
	// client does not work; a refusal of the token is part of the answer.
	verify func(request) (answer, error)
	broken error // if not nil, the client is not asked any more
	rows   []*row
}

func (c *client) supports(algorithm string) bool { return !slices.Contains(c.lacks, algorithm) }

// A request is a token to be verified. It is also the line of JSON that a client's
// process reads.
type request struct {
	// Verifier names the verifier, which is made when its name first comes. Each
	// finds the issuer's keys by itself, through discovery, and caches them as
	// the library does by default.
	Verifier  string `json:"verifier"`
	Issuer    string `json:"issuer"`
	Audience  string `json:"audience"`
	Algorithm string `json:"algorithm"` // the only one to accept
	Token     string `json:"token"`
}

// An answer is the line of JSON that comes back: the token's sub claim, or why the
// client refuses the token.
type answer struct{ Subject, Error string }

// goLibraries run in this process.
var goLibraries = []struct {
	name, module string
	create       create
}{
	{"MicahParks/keyfunc", "github.com/MicahParks/keyfunc/v3", newKeyfunc},
	{"coreos/go-oidc", "github.com/coreos/go-oidc/v3", newGoOIDC},
	{"lestrrat-go/jwx", "github.com/lestrrat-go/jwx/v3", newJWX},
}

// processes are clients in other languages. Each runs in the folder of its language.
var processes = []struct {
	name, language string
	lacks          []string
	command        []string
}{
	{"aws-jwt-verify", "Node", []string{"PS256"}, []string{"node", "aws-jwt-verify.mjs"}},
	{"jose", "Node", nil, []string{"node", "jose.mjs"}},
	{"PyJWT", "Python", nil, []string{".venv/bin/python", "client.py"}},
	{"nimbus-jose-jwt", "Java", nil, []string{"java", "-cp", "target/classes:target/dependency/*", "Client"}},
}

// installs are the commands that install the libraries of a language.
var installs = map[string][][]string{
	"Node": {{"npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"}},
	"Python": {
		{"python3", "-m", "venv", ".venv"},
		{".venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"},
	},
	"Java": {{"mvn", "--quiet", "--batch-mode", "compiler:compile", "dependency:copy-dependencies"}},
}
