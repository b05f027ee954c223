// Package app is the assembly: a config becomes a running node. It is the one
// package that knows every other.
package app
