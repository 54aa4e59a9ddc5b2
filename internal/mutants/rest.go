package main

var keyMutants []mutant
var fileMutants []mutant
var awsMutants []mutant
var rotationMutants []mutant
var loadMutants []mutant
var secretMutants []mutant
