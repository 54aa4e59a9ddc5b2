package jws

import (
	"bytes"
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestConcatenated: numbers that DER shortens are padded, and the zero that DER puts before a
// number whose highest bit is set is dropped. Such numbers are too rare in signatures to wait
// for.
func TestConcatenated(t *testing.T) {
	for _, size := range []int{32, 48} {
		values := [][]byte{
			{1}, append([]byte{0x80}, make([]byte, size-1)...), bytes.Repeat([]byte{0xff}, size),
			append([]byte{0x7f}, make([]byte, size-2)...), append([]byte{0x80}, make([]byte, size-2)...), // one byte shorter
		}
		for _, r := range values {
			for _, s := range values {
				der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
				require.NoError(t, err)
				want := make([]byte, 2*size)
				copy(want[size-len(r):], r)
				copy(want[2*size-len(s):], s)
				assert.Equal(t, want, concatenated(der, size), "%x, %x", r, s)
			}
		}
	}
}
