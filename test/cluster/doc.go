// Package cluster is the fault suite: replicas as real processes behind a real
// load balancer, over a real database and a real Redis, with a network between any
// two parts that can be cut, delayed or held one way. Clients log in, renew,
// verify, forge and keep key sets all the while, and whatever they were answered
// is held against what a cluster promises (history_test.go says what exactly).
//
//	go test ./test/cluster -run TestFaults -v -args -seed 42
//
// repeats the faults of the run that printed that seed, in their order, and what the
// clients chose. When an answer comes is up to the machine, and addresses and keys are
// new each time. Lines that begin with "summary:" say what a run has done; `make test`
// shows them.
//
// With WATCHWORD_SOAK=1 each test takes its long form: more replicas and more
// clients, so that the machine is too busy now and then; a witness tells when.
// The short form excuses nothing by the machine.
package cluster
