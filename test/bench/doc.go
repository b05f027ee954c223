// Package bench measures what a request costs the server, beside a bare net/http
// server that does only the cryptography, in the same run: requests per second of
// the server's CPU time, so that neither the client nor a busy machine is measured.
//
//	go test -run '^$' -bench . -benchtime 1x ./test/bench
package bench
