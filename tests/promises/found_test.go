package promises

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
)

// TestFound runs histories that once broke a promise, and that the short form of
// TestHistories does not draw.
func TestFound(t *testing.T) {
	for name, h := range map[string]history{
		"K5 MustExist, and the store is empty": {First: 1, Fleet: 1, Start: 256, Steps: []step{{stop, 0, 0}, {remove, 0, 0}, {start, 1, 128}}},
		"K6 a rollback before a revocation, and another": {First: 1, Fleet: 1, Start: 256, Steps: []step{
			{revoke, 0, 0}, {pass, 0, 4}, {rollBack, 0, 0}, {revoke, 0, 31}}},
		"K8 rotate, roll back and revoke":  {First: 1, Fleet: 1, Start: 256, Steps: []step{{rotate, 0, 0}, {rollBack, 0, 0}, {revoke, 0, 0}}},
		"RevokeAll and an announced key":   {First: 1, Fleet: 2, Start: 256, Steps: []step{{rotate, 0, 0}, {revokeAll, 0, 0}, {pass, 0, 4}}},
		"RevokeAll loses its reply":        {First: 1, Fleet: 1, Start: 256, Fault: lostReplies, Steps: []step{{revokeAll, 0, 0}}},
		"a revoked former key had no name": {Fleet: 1, Start: 264, Steps: []step{{revoke, 0, 502}, {revoke, 0, 22}}},
		"a refused bundle that was rolled back went on": {First: 1, Fleet: 3, Start: 288, Steps: []step{
			{stop, 0, 397}, {restore, 0, 5}, {together, 0, 483}, {remove, 1, 0}, {edit, 1, 45}, {pass, 0, 318}, {remove, 0, 3},
			{stop, 1, 30}, {pass, 0, 253}, {restore, 0, 3}, {rollBack, 1, 8}}},
	} {
		t.Run(name, func(t *testing.T) {
			verdict := ""
			synctest.Test(t, func(*testing.T) { verdict = run(h) })
			assert.Empty(t, verdict)
		})
	}
}
