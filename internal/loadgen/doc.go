// Package loadgen puts load on replicas over HTTP, and judges every answer.
//
// It logs in, renews, verifies and revokes, at one URL or at many in turns, as a number of
// callers who each wait for their answer (closed loop), or at fixed times whether the former
// requests have been answered or not (open loop). In the open loop a latency counts from the
// time at which its request was due, so that a service that stands still for a second is
// seen to do so, and not spared the requests that would have come meanwhile.
//
// A report counts as a violation: a token that is accepted later than the bound after its
// revocation was answered; a good token, refresh token or password that is rejected; more
// requests than a limit allows; a forged token that is accepted; an answer that is not what
// the API promises. The answers 429 and 503, and no answer, are refusals and failures: they
// are counted and shown, and promise nothing.
package loadgen
