// Package tiered puts Redis in front of SQL. SQL has the truth: every write is
// done there and every count is kept there. Redis has copies of records that were
// read, and refuses floods of attempts before they reach SQL. Redis may be lost,
// slow, flushed, restarted, or replaced by a replica that lags behind, at any
// moment and for any of the replicas alone: answers become slower, not wrong.
//
// # What is guaranteed
//
// A Get returns the record as of the last write that was answered anywhere,
// provided that the clocks of two replicas do not run so differently that a
// lease on one lasts 1.5 times as long as on the other.
//
// # How
//
// A single writer cannot know whether what it cannot reach, others still read: a
// replica that is cut off from Redis would write to SQL while the others go on
// reading old copies. So whether copies are read at all is one decision for the
// whole cluster, kept in SQL in the control record, in one of three phases:
//
//	off    nobody reads copies; writers leave Redis alone
//	write  nobody reads copies; writers clear them
//	on     copies are read; writers clear them
//
// Write and on name a generation of copies and the server that it was opened on.
// A generation is opened once. Only that very server process serves it: another
// one, which may have lost what was acknowledged, does not (redisstate, cache.go).
//
// A replica acts on what it read of the control record for a lease, counted from
// before it asked. The phases go off → write → on → off, by compare and swap. Who
// moves off → write or write → on has seen the phase for a patience longer than
// a lease, and write → on for so long besides that a write begun in off is done,
// or never will be (late). Anybody moves to off at any moment: who cannot reach the
// server, or meets another one.
//
// A write:
//
//  1. In write or on: mark the record in Redis. If that fails, move to off first.
//  2. Write to SQL. If its answer does not say what has become of the write, that
//     is all: SQL may do it still. Else:
//  3. In write or on: clear the record in Redis (its copy, and every permission
//     to fill one in), and be still in the same generation by a lease that is
//     valid after that, or by asking again. In off: let pass a patience since off
//     was first seen. If neither can be had, the write is not answered.
//
// A read, in on: a copy counts if the lease is valid after it was received. If
// there is none, take a permission (one a record), read SQL, and fill the copy in
// if the permission still stands.
//
// # Why that is enough
//
// Let a write commit at c and be answered; let a copy be read later. Is it from
// before c?
//
// Answered by clearing generation g at f > c. At a moment when the lease, or the
// question, was answered, g was current. (1) A reader in g: at f the copy went,
// and the permissions; who gets one later reads SQL after c. (2) A reader in an
// earlier generation: its lease ended before g reached write, a patience after
// the off between them. (3) A reader in a later one: its phase on came at least
// a patience after g was seen current, so its copies were read from SQL after c.
//
// Answered in off. (1) A reader in an earlier generation: its lease has ended,
// for a patience has passed since off. (2) A reader in a later one: as (3) above.
//
// Marks add this: from before c until the answer a copy is not read, so nobody
// sees an old copy who has seen the new record already; and a writer that dies in
// between leaves a mark, and readers go to SQL until it expires.
//
// A write that was not answered, and is done later, or not at all, is old or new
// for everybody all the same: until it is done, its mark keeps copies away, or, if
// it was begun in off, no copies are read at all. Only a Redis that forgets the
// mark before can keep an old copy of such a record, until its next write.
//
// Who can write to Redis can bring back a copy from before, of the same generation,
// or refuse attempts; he cannot make a record up (copy.go).
//
// # A slow Redis
//
// Nobody waits for Redis longer than 250 ms. A replica that has waited in vain, or
// got an error, leaves Redis alone until a ping, beside all requests, is answered
// (breaker.go). A write that meets Redis as it begins to fail takes longest: two
// such waits, and the patience after off.
//
// # Limit
//
// SQL counts. Redis counts the same events before, and what it refuses is refused
// without SQL. Without Redis all go to SQL. So an event counts once, whatever
// becomes of Redis, and never in the memory of one process.
package tiered
