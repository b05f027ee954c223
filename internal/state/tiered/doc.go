// Package tiered puts copies of records into Redis, in front of SQL. SQL has the
// truth, and alone does every operation of state.Store. Redis may be lost, slow or
// flushed, or go back in time, at any moment and for any replica alone: no right
// answer needs it.
//
// A copy was the record at some moment of the last CopyLife, give or take the
// difference of two replicas' clocks, and ends before its record does. Nothing else
// is promised. So a copy is for a caller that learns of what matters by another way,
// and for longer than a copy lives: package session recognises a session by it,
// because the revocation log has an entry for whatever ends a session before its
// time, and each view lists an entry for ten minutes at least. Therefore a delete
// leaves the copy alone, and so does a write whose outcome is not known. Under another
// log, as after a restore, a copy says nothing.
//
// A later version is never replaced by an earlier one; see redisstate.Copy. A copy has
// a MAC, under a key made of the cluster's secret. Whoever can write to Redis can only
// remove a copy, or bring one back before its end, which changes nothing of the above.
package tiered
