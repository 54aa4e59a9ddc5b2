package fleetkey_test

import (
	"crypto/rsa"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
	"github.com/fleetkey/fleetkey/fleetkeytest"
)

// rocaModulus makes a modulus of 2048 bits as the faulty chips did, but that its
// factors do not matter here: a power of 65537 modulo the first 126 primes.
func rocaModulus(t *testing.T) *big.Int {
	t.Helper()
	product := big.NewInt(2)
	for p := int64(3); p <= 701; p += 2 {
		if big.NewInt(p).ProbablyPrime(0) {
			product.Mul(product, big.NewInt(p))
		}
	}
	power := new(big.Int).Exp(big.NewInt(65537), big.NewInt(123456789), product)
	n := new(big.Int).Lsh(big.NewInt(3), 2046)
	n.Sub(n, new(big.Int).Mod(n, product))
	n.Add(n, power)
	require.Equal(t, 2048, n.BitLen())
	return n
}

// TestWeakKeys: a key that anybody can sign for does not get into a set.
func TestWeakKeys(t *testing.T) {
	roca := rocaModulus(t)
	for name, c := range map[string]struct {
		n    *big.Int
		want string
	}{
		"of a faulty chip":      {roca, "CVE-2017-15361"},
		"not of a faulty chip":  {new(big.Int).Add(roca, big.NewInt(2)), ""},
		"nor is this one":       {new(big.Int).Sub(roca, big.NewInt(1<<20)), ""},
		"a modulus of no chip":  {new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 2048), big.NewInt(1942289)), ""},
		"too short for it, too": {new(big.Int).Rsh(roca, 1), "2047 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			public := &rsa.PublicKey{N: c.n, E: 65537}
			store := fleetkeytest.NewStore()
			store.Set([]byte(bundleOf(t, public, nil, noon, noon.Add(time.Hour))))
			s, err := fleetkey.NewSigner(at(noon), store, testConfig())
			if c.want == "" {
				require.NoError(t, err)
				require.NoError(t, s.Close())
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}
