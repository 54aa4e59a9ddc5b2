package fleetkey_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleetkey/fleetkey"
)

// This file tests the claims of a verified Token, and that a Token cannot be changed.

func TestHasScope(t *testing.T) {
	p := newParty(t, "ES256")
	for scope, want := range map[string][]string{
		"":             nil,
		"read":         {"read"},
		"read write":   {"read", "write"},
		" read  write": {"read", "write"},
		"reader":       nil,
		"READ":         nil,
		"read\twrite":  nil, // RFC 6749 section 3.3 allows only spaces
		"read\u00a0":   nil,
	} {
		token := must(p.Verify(t.Context(), must(p.Issue(t.Context(), fleetkey.Claims{ClientID: "web", Scope: scope}))))
		for _, asked := range []string{"read", "write", "", " ", "read write", "rea"} {
			assert.Equal(t, slices.Contains(want, asked), token.HasScope(asked), "%q has %q", scope, asked)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A keeper carelessly keeps the slice passed to UnmarshalJSON, and so shares memory with the
// caller.
type keeper struct{ text []byte }

func (k *keeper) UnmarshalJSON(text []byte) error { k.text = text; return nil }

// A directKeeper does the same with json/v2's UnmarshalJSONFrom.
type directKeeper struct{ text jsontext.Value }

func (k *directKeeper) UnmarshalJSONFrom(dec *jsontext.Decoder) (err error) {
	k.text, err = dec.ReadValue()
	return err
}

func TestTokenCannotBeChanged(t *testing.T) {
	p := newParty(t, "ES256")
	token, err := p.Verify(t.Context(), must(p.Issue(t.Context(), fleetkey.Claims{Subject: "alice", ClientID: "web", Audience: []string{api, "x"},
		Extra: map[string]any{"list": []any{"a", "b"}, "map": map[string]any{"k": "v"}, "bytes": []byte("secret"), "text": "t"}})))
	require.NoError(t, err)
	read := func() (all map[string]any) {
		require.NoError(t, token.Decode(&all))
		return all
	}
	before := read()
	spoil := func(b []byte) {
		for i := range b {
			b[i] = 'X'
		}
	}

	token.Audience()[0] = "changed"
	changed := read()
	changed["list"].([]any)[0] = "changed"
	changed["map"].(map[string]any)["k"] = "changed"
	delete(changed, "sub")

	var members struct {
		Raw   json.RawMessage `json:"list"`
		Bytes []byte          `json:"bytes"`
		Kept  keeper          `json:"map"`
	}
	require.NoError(t, token.Decode(&members))
	spoil(members.Raw)
	spoil(members.Bytes)
	spoil(members.Kept.text)
	var whole jsontext.Value
	require.NoError(t, token.Decode(&whole))
	spoil(whole)
	var direct directKeeper
	require.NoError(t, token.Decode(&direct))
	spoil(direct.text)

	assert.Equal(t, before, read())
	assert.Equal(t, []string{api, "x"}, token.Audience())
	assert.Equal(t, "alice", token.Subject())
}

func TestDecode(t *testing.T) {
	p := newParty(t, "ES256")
	token, err := p.Verify(t.Context(), p.Forge(p.Header(), payload("tenant", `"t1"`, "Tenant", `"other"`, "big", "9007199254740993")))
	require.NoError(t, err)
	var claims struct {
		Subject string `json:"sub"`
		Tenant  string `json:"tenant"`
		Big     int64  `json:"big"`
	}
	require.NoError(t, token.Decode(&claims))
	assert.Equal(t, "alice", claims.Subject)
	assert.Equal(t, "t1", claims.Tenant, "names are case-sensitive")
	assert.EqualValues(t, 9007199254740993, claims.Big)

	var wrong struct {
		Tenant int `json:"tenant"`
	}
	require.ErrorContains(t, token.Decode(&wrong), "fleetkey: decode claims: ")
	require.Error(t, token.Decode(wrong), "not a pointer")
	require.Error(t, token.Decode(nil))
}
