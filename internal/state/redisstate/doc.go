// Package redisstate keeps shared state in Redis or Valkey: one server, Sentinel
// or Cluster. Every operation on one record is one round trip; those that read and
// write are one script, which takes the time from the server.
//
// Keys. The owner is the hash tag, so that a cluster keeps what belongs together
// in one partition:
//
//	<kind>:{<owner>}:<id>       a record: version, expiry, value
//	<kind>_index:{<owner>}      the ids of an owner's records, by expiry
//	rate:{<owner>}:<kind>:<id>  a bucket of Limit
//	copy:<kind>:{<owner>}:<id>  a copy of package tiered's
//
// With Store.Installation, that stands before the owner: <kind>:<installation>:{<owner>}:<id>.
//
// The scripts replicate by their effects and need no module. They need Redis 6.2.
//
// What Redis forgets is gone: use persistence (appendonly yes), and
// maxmemory-policy noeviction (Check looks at it), or package tiered. Redis
// answers before its own replicas have a write, so that a failover loses the last
// writes; min-replicas-to-write bounds for how long a primary that is cut off goes on
// answering. Until a replica of Redis has taken over, operations fail with
// ErrUnavailable, and so they do on a server that is a replica.
package redisstate
