package main

import (
	"crypto/rand"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// This is docs/operations.md as a test: instances with a key of their own each
// refuse the others' tokens. Redeployed one after the other with ADOPT_FILE, they
// share a key, each goes on to accept the tokens that it has issued, and the local
// files say that they have served.
func testMoveFromLocalKeys(t *testing.T, aws *awsRecorder, dir string, command []string) {
	imds := startMetadata(t)
	before := t.TempDir() // the version that has its keys in files
	require.NoError(t, os.Symlink(filepath.Join(dir, "bin"), filepath.Join(before, "bin")))
	require.NoError(t, os.WriteFile(filepath.Join(before, "appsettings.json"), []byte("{}"), 0o600))

	secret := rand.Text()
	var instances []*instance
	var files, tokens []string
	for _, name := range []string{"i1", "i2", "i3"} {
		i := &instance{name: name, port: freePort(t), dir: before, command: command}
		i.log = filepath.Join(t.TempDir(), "web.stdout.log")
		file := filepath.Join(t.TempDir(), "keys", "keys.pem")
		i.env = []string{
			"PORT=" + i.port, "ISSUER=https://id.example.com", "CLIENT_SECRET_SHA256=" + hash(secret), "HOME=" + t.TempDir(),
			"OpenIDServerSigningSettings__File__Path=" + file,
		}
		instances, files = append(instances, i), append(files, file)
		i.start(t)
		i.await(t)
		tokens = append(tokens, client{base: i.url(), secret: secret}.token(t))
	}
	require.Equal(t, http.StatusUnauthorized, accepts(t, instances[1], tokens[0]), "instances with keys of their own accept each other's tokens")

	for n, i := range instances {
		i.terminate(t)
		i.dir = dir
		i.env = append(i.env[:4:4], "ADOPT_FILE="+files[n], "ROTATE_EVERY=2160h",
			"OpenIDServerSigningSettings__AwsSecretManager__SecretName="+aws.secret,
			"AWS_EC2_METADATA_SERVICE_ENDPOINT="+imds.url, "AWS_ENDPOINT_URL_SECRETS_MANAGER="+aws.url)
		i.start(t)
		i.await(t)
	}
	kid := signingKID(t, instances[0].url()+healthPath)
	for n, i := range instances {
		assert.Equal(t, kid, signingKID(t, i.url()+healthPath), i.name)
		fresh := client{base: instances[(n+1)%len(instances)].url(), secret: secret}.token(t)
		for _, token := range []string{tokens[n], tokens[0], fresh} { // the first one's key is the fleet's
			assert.Equal(t, http.StatusOK, accepts(t, i, token), i.name)
		}
		left, err := os.ReadFile(files[n])
		require.NoError(t, err)
		assert.Contains(t, string(left), "Adopted by AWS secret "+aws.secret)
	}
	for _, i := range instances {
		i.terminate(t)
	}
	aws.check(t)
}

// accepts returns the API's status for a token.
func accepts(t *testing.T, i *instance, token string) int {
	return client{base: i.url()}.get(t, helloPath, token).StatusCode
}

// await polls until the instance has its keys and serves.
func (i *instance) await(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if resp, err := httpClient.Get(i.url() + healthPath); err == nil {
			resp.Body.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s does not serve:\n%s", i.name, i.logged(t))
}
