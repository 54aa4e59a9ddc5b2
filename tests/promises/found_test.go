package promises

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
)

// TestFound runs histories that have broken a promise once, shrunk, and those of reports and
// attacks, by their numbers in docs/faults.md.
func TestFound(t *testing.T) {
	// Kids are numbered as the fleet learns them: of each machine its own key and a stolen
	// one that it has revoked, then the first key of the store.
	for name, h := range map[string]history{
		"K3 a revoked former key comes back under its other names": {First: 1, Fleet: 2, Start: 264, Steps: []step{
			{revoke, 0, 18}, {start, 1, 272}, {pass, 0, 8}, {start, 0, 272}}},
		"K3, K4 a revoked former key is imported": {First: 1, Fleet: 2, Start: 304, Steps: []step{
			{revoke, 0, 2}, {restore, 0, 0}, {pass, 0, 5}, {start, 2, 256}}},
		"K4 a revoked key is adopted or imported": {Fleet: 1, Start: 320, Steps: []step{
			{revoke, 0, 0}, {start, 0, 320}, {start, 1, 256}, {restore, 0, 0}, {pass, 0, 5}}},
		"K4 a key that was revoked before the adoption is imported": {Fleet: 1, Start: 320, Steps: []step{{restore, 0, 1}, {pass, 0, 5}}},
		"K5 MustExist, and the store is empty":                      {First: 1, Fleet: 1, Start: 256, Steps: []step{{stop, 0, 0}, {remove, 0, 0}, {start, 1, 128}}},
		"K5 the store holds a certificate only":                     {First: 1, Fleet: 1, Start: 256, Steps: []step{{cut, 0, 5}, {pass, 0, 5}}},
		"K6 a fresh process revokes a key that is gone": {First: 1, Fleet: 1, Start: 256, Steps: []step{
			{swap, 0, 0}, {pass, 0, 4}, {start, 1, 256}, {revoke, 1, 27}, {pass, 0, 4}}},
		"K6 a rollback before a revocation, without rotation": {First: 1, Fleet: 2, Start: 256, Steps: []step{
			{revoke, 0, 0}, {pass, 0, 4}, {rollBack, 0, 0}, {pass, 0, 5}}},
		"K6 a rollback before a revocation, with rotation": {Policy: 2, First: 1, Fleet: 2, Start: 256, Steps: []step{
			{revoke, 0, 0}, {pass, 0, 5}, {rollBack, 0, 0}, {pass, 0, 5}}},
		"K6 a rollback before a revocation, and a rotation by hand": {First: 1, Fleet: 1, Start: 256, Steps: []step{
			{revoke, 0, 0}, {pass, 0, 4}, {rollBack, 0, 0}, {rotate, 0, 0}}},
		"K6 a rollback before a revocation, and another": {First: 1, Fleet: 1, Start: 256, Steps: []step{
			{revoke, 0, 0}, {pass, 0, 4}, {rollBack, 0, 0}, {revoke, 0, 31}}},
		"K8 rotate, roll back and revoke": {First: 1, Fleet: 1, Start: 256, Steps: []step{{rotate, 0, 0}, {rollBack, 0, 0}, {revoke, 0, 0}}},
		"K9 a first start 45 days ahead": {Policy: 2, Fleet: 1, Steps: []step{
			{stop, 0, 0}, {remove, 0, 0}, {move, 0, 7}, {start, 0, 0}, {start, 1, 0}, {pass, 0, 9}}},
		"K9 a first start 45 days behind": {Policy: 2, Fleet: 1, Steps: []step{
			{stop, 0, 0}, {remove, 0, 0}, {move, 0, 8}, {start, 0, 0}, {start, 1, 0}, {pass, 0, 9}}},
		"K9 a revocation 45 days ahead":                {Policy: 2, First: 1, Fleet: 2, Steps: []step{{move, 0, 7}, {revoke, 0, 0}, {pass, 0, 9}}},
		"K10 a policy that cannot work":                {First: 1, Fleet: 1, Start: 256, Steps: []step{{start, 1, 6}}},
		"K11 an ES384 key is replaced":                 {Policy: 2, First: 2, Fleet: 2, Start: 256, Steps: []step{{rotate, 0, 0}, {pass, 0, 9}}},
		"RevokeAll revokes the announced key too":      {First: 1, Fleet: 2, Start: 256, Steps: []step{{rotate, 0, 0}, {revokeAll, 0, 0}, {pass, 0, 4}}},
		"Revoke replaced an ES256 key by an RS256 key": {Policy: 2, First: 1, Fleet: 2, Start: 256, Steps: []step{{revokeAll, 0, 511}}},
		"so did Rotate after a rollback": {Policy: 1, First: 2, Fleet: 3, Start: 256, Steps: []step{
			{revoke, 1, 4}, {together, 1, 224}, {edit, 1, 55}, {rollBack, 1, 16}, {together, 1, 1}}},
		"RevokeAll failed where nothing could sign": {First: 2, Fleet: 3, Start: 256, Steps: []step{
			{revokeAll, 1, 31}, {cut, 2, 7}, {revokeAll, 1, 3}}},
		"a revoked key signed on after a write that failed": {Policy: 2, First: 1, Fleet: 2, Start: 256, Steps: []step{
			{fail, 1, readOnly}, {revokeAll, 0, 152}, {revokeAll, 1, 164}}},
		"a revoked former key had no name":             {Fleet: 1, Start: 264, Steps: []step{{revoke, 0, 502}, {revoke, 0, 22}}},
		"Rotate made its key twice after a lost reply": {Fleet: 1, Start: 320, Steps: []step{{fail, 0, lostReplies}, {swap, 0, 486}, {together, 0, 4}}},
		"a refused bundle that was rolled back went on": {First: 1, Fleet: 3, Start: 288, Steps: []step{
			{stop, 0, 397}, {restore, 0, 5}, {together, 0, 483}, {remove, 1, 0}, {edit, 1, 45}, {pass, 0, 318}, {remove, 0, 3},
			{stop, 1, 30}, {pass, 0, 253}, {restore, 0, 3}, {rollBack, 1, 8}}},
		// The model took the certificate of a save that met a conflict for the one in the store.
		"a key that was announced, retired and swapped": {Policy: 1, First: 1, Fleet: 3, Start: 264, Fault: slow, Steps: []step{
			{together, 0, 418}, {pass, 0, 1}, {together, 2, 1}, {pass, 0, 30}, {edit, 1, 12}, {pass, 2, 13}, {together, 2, 22}, {pass, 0, 1},
			{edit, 0, 169}, {swap, 0, 76}, {edit, 0, 306}, {swap, 0, 79}, {together, 0, 17}, {edit, 1, 17}, {swap, 1, 511}, {together, 2, 0},
			{edit, 0, 2}, {pass, 2, 511}, {edit, 1, 2}, {swap, 1, 0}, {swap, 2, 81}}},
	} {
		t.Run(name, func(t *testing.T) {
			verdict := ""
			synctest.Test(t, func(*testing.T) { verdict = run(h) })
			assert.Empty(t, verdict)
		})
	}
}
