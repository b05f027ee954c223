// Package app is the assembly: a config becomes a running node. It is the one
// package that knows every other.
//
// Who calls it: cmd/watchword, for the service and for each of its commands, and the
// public package watchword.
package app
