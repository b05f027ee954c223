// Package kit is what the tests of whole replicas share: a configuration that costs little,
// a replica in the process of the test, calls and their answers, and waiting for an event.
// It does not import package app, so that the tests inside of that package can use it, too.
package kit
