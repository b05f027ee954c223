import type { FastifyReply, FastifyRequest } from 'fastify'

import type { Condition, Token, Verifier } from './index.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** The token that requireToken has let through. */
    token?: Token
  }
}

/**
 * Makes a hook for onRequest that lets a request through only with a good token that meets every
 * condition; request.token is the token.
 */
export function requireToken(verifier: Verifier, ...conditions: Condition[]): (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>

/** Makes a handler that answers with the metadata of the verifier's resource (RFC 9728), for app.get(metadataPath(resource), …). */
export function metadata(verifier: Verifier): (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>
