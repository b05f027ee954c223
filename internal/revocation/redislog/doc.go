// Package redislog is what was taken back, in Redis: for replicas that ask about
// every token (revocation.check shared), and for whoever else reads Redis. A key
// names what it takes back, revoked_token:{jti}, and ends when nothing is left that
// it concerns; a last one says from which number of the log on all are there.
//
// Who calls it: revocation, through its interface Shared.
package redislog
