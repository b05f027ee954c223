// Package servers is resource servers of three languages with one HTTP contract, as processes
// for tests: Go (package verify), JavaScript (sdk/js) and Python (sdk/python).
//
//	PROGRAM --issuer URL... [--audience AUD] [--max-staleness SECONDS] [--listen ADDRESS]
//
// Each --issuer makes one resource server, with a verifier and connections of its own, and a
// line "listening on ADDRESS" on standard output, in their order. SIGTERM ends the process.
//
//	GET  /any      any good token          200 with the claims
//	GET  /ship     needs the claim ship=acc
//	GET  /open     accepts a good token while the feed is stale
//	GET  /status   {"keys","revocations","confirmed_age_ms","fresh"} of the verifier
//	POST /tokens   one token a line        200 with an array of codes, "" for a good token
//	GET  /refused  held until the token is refused for good: 200 with the code
//
// /refused asks the verifier every 5 ms, within the process. So many resource servers can be
// measured at once, and the requests of the test do not keep them busy.
package servers
