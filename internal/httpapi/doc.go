// Package httpapi is the HTTP face: routes, JSON, errors, health, key sets, the
// feed. It parses, calls a use case and writes the answer; it decides nothing.
//
// Who calls it: app, which mounts it on the listener of a node.
package httpapi
