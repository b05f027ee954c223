// Package state is the shared state that expires: sessions with their refresh
// tokens, and counters of attempts. It offers only operations that can be made
// atomic on every backend, and says of each what it promises; package statetest
// holds a backend to it.
//
// Backends: memstate (one process only), sqlstate, redisstate, tiered. Who calls
// it: session.
package state
