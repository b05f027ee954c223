// Package state is the shared state that expires: sessions with their refresh tokens, and
// counters of attempts. It offers only operations that can be made atomic on every
// backend, and says of each what it promises. Package statetest holds a backend to that.
//
// The backends are memstate (one process only), sqlstate, redisstate and tiered, which is
// sqlstate with copies of some records in Redis.
package state
