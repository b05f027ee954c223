// Package httpapi is the HTTP face: routes, JSON, errors, health, key sets, the
// feed. It parses, calls a use case and writes the answer; it decides nothing.
package httpapi
