// Package httpapi is the JSON API: its routes, health, key sets and the feed. Each face reads
// a request, calls one use case and writes the answer. Authorization is decided in the use
// cases.
package httpapi
