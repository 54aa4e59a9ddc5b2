package fleetkey_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// TestKeyUsage: a certificate that says what its key is for has to say that it
// is for signatures, since another purpose's key may be held by others.
func TestKeyUsage(t *testing.T) {
	p := newParty(t, "ES256")
	for usage, allowed := range map[x509.KeyUsage]bool{
		0:                              true, // it says nothing
		x509.KeyUsageDigitalSignature:  true,
		x509.KeyUsageContentCommitment: true,
		x509.KeyUsageKeyEncipherment:   false,
		x509.KeyUsageKeyAgreement:      false,
		x509.KeyUsageCertSign:          false,
		x509.KeyUsageDataEncipherment:  false,
		x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment: true,
	} {
		template := &x509.Certificate{Subject: pkix.Name{CommonName: "test"}, NotBefore: noon, NotAfter: noon.Add(time.Hour), KeyUsage: usage}
		der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: pkix.Name{CommonName: "another"}}, p.private.Public(), p.private)
		require.NoError(t, err)
		store := fleetkeytest.NewStore()
		store.Set(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		s, err := fleetkey.NewSigner(at(noon), store, testConfig())
		if allowed {
			require.NoError(t, err, "%b", usage)
			require.NoError(t, s.Close())
			continue
		}
		require.ErrorContains(t, err, "key usage", "%b", usage)
	}
}
