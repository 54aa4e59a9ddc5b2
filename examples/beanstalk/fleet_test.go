package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/internal/moto"
)

// TestBundle deploys the source bundle as far as that can be done on one machine:
// three processes whose region and credentials come from an instance metadata
// service, and their key from Secrets Manager (moto).
func TestBundle(t *testing.T) {
	aws, err := url.Parse(moto.URL(t))
	require.NoError(t, err)
	dir, command := unpackBundle(t)
	t.Run("BehindHAProxy", func(t *testing.T) { testBehindHAProxy(t, startAWS(t, aws), dir, command) })
	t.Run("MoveFromLocalKeys", func(t *testing.T) { testMoveFromLocalKeys(t, startAWS(t, aws), dir, command) })
}

// A token has to work at every instance behind a real HAProxy, and go on working
// while one of them dies and comes back.
func testBehindHAProxy(t *testing.T, aws *awsRecorder, dir string, command []string) {
	imds, options := startMetadata(t), readProperties(t, dir)
	c := client{secret: rand.Text(), issuer: "https://id.example.com"}
	var instances []*instance
	for n := range 3 {
		i := &instance{name: fmt.Sprintf("i%d", n+1), port: freePort(t), dir: dir, command: command}
		i.log = filepath.Join(t.TempDir(), "web.stdout.log")
		i.env = properties(options["aws:elasticbeanstalk:application:environment"], map[string]string{
			"PORT": i.port, "ISSUER": c.issuer, "CLIENT_SECRET_SHA256": hash(c.secret), "HOME": t.TempDir(),
			"OpenIDServerSigningSettings__AwsSecretManager__SecretName": aws.secret,
			"AWS_EC2_METADATA_SERVICE_ENDPOINT":                         imds.url,
			"AWS_ENDPOINT_URL_SECRETS_MANAGER":                          aws.url,
		})
		instances = append(instances, i)
	}
	health := options["aws:elasticbeanstalk:environment:process:default"]["HealthCheckPath"]
	b := startHAProxy(t, health, instances)
	c.base = b.url
	for _, i := range instances {
		i.start(t)
	}
	for _, i := range instances {
		b.await(t, i, "UP")
	}

	kid := signingKID(t, instances[0].url()+health)
	for _, i := range instances[1:] {
		require.Equal(t, kid, signingKID(t, i.url()+health), "%s has another key", i.name)
	}
	token := c.token(t)
	require.Len(t, c.use(t, token, kid, 30), 3, "round robin did not reach all instances")
	require.Equal(t, http.StatusNotFound, c.get(t, health, "").StatusCode, "clients can see the health answer")
	require.Equal(t, []string{kid}, c.keys(t))

	lost := instances[1]
	lost.kill(t)
	c.use(t, token, kid, 10) // HAProxy may not have noticed yet
	b.await(t, lost, "DOWN")
	require.NotContains(t, c.use(t, token, kid, 20), lost.name)
	during := c.token(t)

	lost.start(t)
	b.await(t, lost, "UP")
	require.Equal(t, kid, signingKID(t, lost.url()+health), "the restarted instance has another key")
	for _, token := range []string{token, during, c.token(t), c.token(t), c.token(t)} {
		require.Len(t, c.use(t, token, kid, 9), 3)
	}
	for _, i := range instances {
		i.terminate(t)
		assert.NotContains(t, i.logged(t), "PRIVATE KEY")
	}
	aws.check(t)
	const starts = 4
	for what, n := range map[string]int64{"session tokens": imds.tokens.Load(), "credentials": imds.credentials.Load(), "regions": imds.regions.Load()} {
		assert.GreaterOrEqual(t, n, int64(starts), "%s taken from the instance metadata", what)
	}
}

// properties returns the environment of a process: those of the bundle's
// configuration, and what the environment itself would set, which wins.
func properties(bundle, environment map[string]string) []string {
	var env []string
	for name, value := range bundle {
		if _, wins := environment[name]; !wins {
			env = append(env, name+"="+value)
		}
	}
	for name, value := range environment {
		env = append(env, name+"="+value)
	}
	return env
}

func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// awsRecorder stands before moto and looks at what the servers ask of AWS.
type awsRecorder struct {
	url, secret string
	mu          sync.Mutex
	created     int
	wrong       []string
}

func startAWS(t *testing.T, target *url.URL) *awsRecorder {
	a := &awsRecorder{secret: "indicium/openid-server-test-" + strings.ToLower(rand.Text())}
	proxy := &httputil.ReverseProxy{
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		ModifyResponse: a.record,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		a.look(r, body, err)
		r.Body = io.NopCloser(bytes.NewReader(body))
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func (a *awsRecorder) look(r *http.Request, body []byte, err error) {
	var in struct{ SecretId, Name string }
	if err == nil {
		err = json.Unmarshal(body, &in)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil || in.SecretId+in.Name != a.secret || !signedByMetadata(r) {
		a.wrong = append(a.wrong, fmt.Sprintf("%s of %q, signed as %q: %v",
			r.Header.Get("X-Amz-Target"), in.SecretId+in.Name, r.Header.Get("Authorization"), err))
	}
}

func (a *awsRecorder) record(r *http.Response) error {
	if r.Request.Header.Get("X-Amz-Target") == "secretsmanager.CreateSecret" && r.StatusCode == http.StatusOK {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.created++
	}
	return nil
}

func (a *awsRecorder) check(t *testing.T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	assert.Equal(t, 1, a.created, "secrets created")
	assert.Empty(t, a.wrong, "requests to AWS that are not for the secret of the property, or not signed with what the instance metadata gave")
}

// A client gets tokens and uses them, all through the balancer.
type client struct{ base, secret, issuer string }

var httpClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 15 * time.Second}

func (c client) token(t *testing.T) string {
	t.Helper()
	form := strings.NewReader(url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}.Encode())
	r, err := http.NewRequest(http.MethodPost, c.base+tokenPath, form)
	require.NoError(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("demo", c.secret)
	var answer struct {
		Token string `json:"access_token"`
	}
	decode(t, do(t, r), &answer)
	require.NotEmpty(t, answer.Token)
	return answer.Token
}

// use calls the API n times with a token, and returns how often each instance
// has answered. Every call has to succeed.
func (c client) use(t *testing.T, token, kid string, n int) map[string]int {
	t.Helper()
	by := map[string]int{}
	for range n {
		resp := c.get(t, helloPath, token)
		require.Equal(t, http.StatusOK, resp.StatusCode, "%s refuses the token: %s", resp.Header.Get(served), resp.Header.Get("WWW-Authenticate"))
		by[resp.Header.Get(served)]++
		var answer struct{ Message, KID string }
		decode(t, resp, &answer)
		require.Equal(t, "hello, demo "+kid, answer.Message+" "+answer.KID)
	}
	return by
}

// keys returns the kids of the key set that discovery leads to.
func (c client) keys(t *testing.T) []string {
	var provider struct {
		Issuer string
		JWKS   string `json:"jwks_uri"`
	}
	decode(t, c.get(t, fleetkey.DiscoveryPath, ""), &provider)
	require.Equal(t, c.issuer, provider.Issuer)
	var set struct {
		Keys []struct{ KID string }
	}
	decode(t, c.get(t, strings.TrimPrefix(provider.JWKS, c.issuer), ""), &set)
	var kids []string
	for _, k := range set.Keys {
		kids = append(kids, k.KID)
	}
	return kids
}

func (c client) get(t *testing.T, path, token string) *http.Response {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, c.base+path, nil)
	require.NoError(t, err)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return do(t, r)
}

func do(t *testing.T, r *http.Request) *http.Response {
	t.Helper()
	resp, err := httpClient.Do(r)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func decode(t *testing.T, resp *http.Response, v any) {
	t.Helper()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, json.NewDecoder(resp.Body).Decode(v))
}

// signingKID asks an instance itself, as the load balancer does.
func signingKID(t *testing.T, health string) string {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, health, nil)
	require.NoError(t, err)
	var answer struct {
		Status string
		KID    string `json:"signing_kid"`
	}
	decode(t, do(t, r), &answer)
	require.Equal(t, "ok", answer.Status)
	require.NotEmpty(t, answer.KID)
	return answer.KID
}
