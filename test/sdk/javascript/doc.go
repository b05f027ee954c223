// Package javascript holds sdk/js, which verifies tokens in JavaScript, to its own tests: those of
// the test vectors of testdata/verifier, of its middleware in express, fastify and hono, of servers
// that mean no good, of its examples, and its types.
package javascript
