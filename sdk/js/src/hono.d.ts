import type { Handler, MiddlewareHandler } from 'hono'

import type { Condition, Token, Verifier } from './index.js'

/**
 * Makes a middleware that lets a request through only with a good token that meets every condition;
 * c.get('token') is the token.
 */
export function requireToken(verifier: Verifier, ...conditions: Condition[]): MiddlewareHandler<{ Variables: { token: Token } }>

/** Makes a handler that answers with the metadata of the verifier's resource (RFC 9728), for app.get(metadataPath(resource), …). */
export function metadata(verifier: Verifier): Handler
