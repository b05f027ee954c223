// Package pages has a real Chromium use the pages of two replicas, as people do: through HAProxy
// with the configuration of examples/balancer, which gives each request to the other replica than
// the one before, over PostgreSQL and Redis.
//
// All tests share one World, which starts with the first of them; each makes users of its own.
// The pages are at http://localhost, where a browser takes cookies without TLS and has passkeys.
package pages
