// Package redislog keeps what was revoked in Redis, for replicas that ask about every
// token (revocation.check shared) and for other programs that read Redis. A key names what
// is revoked, such as revoked_token:{jti}, and expires when no token is left that it
// concerns. One more key, revocation_span, names the part of the log that is all there.
package redislog
