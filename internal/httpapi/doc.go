// Package httpapi is the JSON API: its routes, health and key sets. Each face reads a
// request, calls one use case and writes the answer. Authorization is decided in the use
// cases.
package httpapi
