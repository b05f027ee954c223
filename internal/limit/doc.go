// Package limit decides how often something may be attempted, counted over the whole cluster:
// from an address and for an account, and how long an account or an address has to wait that
// has failed before. The counting itself is done by package state, one atomic step each; so all
// replicas count as one, and a restart forgets nothing. Rates go by the clock of the state, and
// the waits after failures by those of the replicas: one that is fast by a second lets the next
// attempt pass a second early, once.
//
// There are three bounds, each described where it is decided:
//
//   - Rates (Limiter.Count): so many requests of a class in a period, from one address and for
//     one account. What is beyond is refused, with the time to wait.
//   - Lockouts (Limiter.Attempt): who guesses at one account has to wait longer after each
//     failure, from one address and, above a higher number of failures, from all. A locked
//     account answers as if the password were wrong.
//   - Spraying (Limiter.Attempt): an address that fails and never succeeds has to wait, too,
//     whatever accounts it names; sooner when there are many failures in the whole cluster.
//
// A rate is counted before a credential is checked. A lockout is decided after that and before
// anybody learns of it, by one compare-and-swap of each counter, which a right credential does
// as a wrong one does. So of attempts at the same moment, at whatever replicas, no more are of
// use for guessing than may fail; attempts that were never answered count nothing; and a user
// who logs in at many places at the same moment is not taken for somebody who guesses.
//
// Nobody locks a user out of an address from which the user signed in within KnownFor: such
// an address has counters of its own for the account, and strangers do not count there. It is
// the address, and no token in the client, because then it also holds for clients that keep
// nothing, as programs and apps do. Who shares the address shares the counters.
//
// Names that do not exist are counted as those that do, so that the counting tells nobody who
// exists.
//
// Whoever can write to the state can forge and forget what is counted. A record that is no
// counter is answered 503 until it has expired or is lifted.
package limit
