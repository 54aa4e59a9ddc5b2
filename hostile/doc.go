// Package hostile runs test vectors written by others against fleetkey: the JSON
// Web Signature and JSON Web Key vectors of Project Wycheproof, and the examples
// of the RFCs. It is a module so that users of the library do not get the 109 MB of
// vectors, which the go.mod of the root would otherwise require.
//
// The tokens that fleetkey's authors thought of are in the tests of internal/jws.
package hostile
