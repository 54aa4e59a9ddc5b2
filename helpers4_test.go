package fleetkey_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// A hostile token must be refused for one reason.
type hostile struct {
	name, token string
	want        error
}

// refusals are the reasons that Verify gives, and what else each must match.
var refusals = map[error][]error{
	fleetkey.ErrMalformed:      {jwt.ErrTokenMalformed},
	fleetkey.ErrWrongType:      {jwt.ErrTokenUnverifiable},
	fleetkey.ErrUnknownKey:     {jwt.ErrTokenUnverifiable},
	fleetkey.ErrWrongAlgorithm: {jwt.ErrTokenSignatureInvalid},
	fleetkey.ErrBadSignature:   {jwt.ErrTokenSignatureInvalid},
	fleetkey.ErrMissingClaim:   {jwt.ErrTokenRequiredClaimMissing, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrWrongIssuer:    {jwt.ErrTokenInvalidIssuer, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrWrongAudience:  {jwt.ErrTokenInvalidAudience, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrExpired:        {jwt.ErrTokenExpired, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrNotYetValid:    {jwt.ErrTokenNotValidYet, jwt.ErrTokenUsedBeforeIssued, fleetkey.ErrInvalidClaims, jwt.ErrTokenInvalidClaims},
	fleetkey.ErrInvalidClaims:  {jwt.ErrTokenInvalidClaims},
}

func checkRefused(t *testing.T, p *party, row hostile) {
	_, _ = p.Verify(t.Context(), row.token) // nothing is remembered of it
	token, err := p.Verify(t.Context(), row.token)
	require.Nil(t, token)
	require.ErrorIs(t, err, row.want)
	wanted := append(slices.Clone(refusals[row.want]), row.want)
	for sentinel, more := range refusals {
		for _, one := range append(slices.Clone(more), sentinel) {
			assert.Equal(t, slices.Contains(wanted, one), errors.Is(err, one), "%v: matches %v?", err, one)
		}
	}
	for i, part := range append(strings.Split(row.token, "."), row.token) {
		if i > 0 && len(part) > 8 {
			assert.NotContains(t, err.Error(), part, "the error shows the token")
		}
	}
	assert.Less(t, len(err.Error()), 1000, "the error is as long as the token")
	assert.True(t, strings.HasPrefix(err.Error(), "fleetkey: ") && !strings.ContainsAny(err.Error(), "\r\n\x00"), "%q", err)
}
