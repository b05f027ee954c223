// Package api tests the HTTP contract of a whole replica from outside: what it answers to
// good, bad and hostile requests, and what a token is worth after each of them.
package api
