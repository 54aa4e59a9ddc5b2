// Package hostile runs third-party test vectors against fleetkey: the JSON Web Signature and
// JSON Web Key vectors of Project Wycheproof, and the examples of the RFCs. It is a separate
// module so that users of the library do not download the 109 MB of vectors, which the root's
// go.mod would otherwise require.
//
// The hostile tokens that fleetkey's authors wrote are in the tests of internal/jws.
package hostile
