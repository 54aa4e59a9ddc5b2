// Package hostile runs test vectors written by others against fleetkey: the JSON
// Web Signature and JSON Web Key vectors of Project Wycheproof, and the examples
// of the RFCs. Beside it lies leaktest, which searches what all tests print for
// private keys. It is a module of its own so that whoever imports the library gets
// none of the 109 MB of vectors.
//
// The tokens that fleetkey's own authors could think of are in
// verify_hostile_test.go of the library.
package hostile
