// Package password owns what a password must be, and how it is hashed: Argon2id (RFC
// 9106) as PHC strings, in a pool that bounds the memory of all hashes together and the
// number of those that wait. Hashes that another system has made are verified in the same
// pool, and replaced at the next login.
//
// Its promises: checking a password takes as long for a user who does not exist as for
// one who does, unless the user's stored hash costs more than today's and few others do; a
// hash that somebody planted cannot take a replica down; and clients that flood the pool wait for
// each other, and not others for them.
package password
