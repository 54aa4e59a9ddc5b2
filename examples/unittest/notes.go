// Package unittest shows how an application tests what it protects with
// fleetkey. This file is the application: a list of notes, for those who may
// read them. The test beside it is the point.
package unittest

import (
	"fmt"
	"net/http"

	"github.com/fleetkey/fleetkey"
)

// Notes serves the notes to callers whose token has the scope notes.read.
func Notes(signer *fleetkey.Signer) http.Handler {
	return signer.Require("notes.read")(http.HandlerFunc(list))
}

func list(w http.ResponseWriter, r *http.Request) {
	token, _ := fleetkey.FromContext(r.Context())
	_, _ = fmt.Fprintf(w, "notes of %s: buy milk\n", token.Subject())
}
