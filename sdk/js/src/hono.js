import { conditionsOf } from './verifier.js'

/**
 * requireToken makes a middleware that lets a request through only with a good token that meets every
 * condition; c.get('token') is the token.
 */
export function requireToken(verifier, ...conditions) {
  const read = conditionsOf(conditions)
  return async (c, next) => {
    try {
      // On Node the request as it came, which has each of several Authorization headers. Elsewhere c.env
      // has what the application is bound to, by names of its own.
      const incoming = Array.isArray(c.env?.incoming?.rawHeaders) ? c.env.incoming : c.req.raw
      c.set('token', await verifier.authorizeWith(read, incoming))
    } catch (error) {
      const { status, headers, body } = verifier.refusal(error) // throws what is no refusal
      // Of a header that was set before, hono would take that one.
      for (const name of Object.keys(headers)) c.header(name, undefined)
      return new Response(body, { status, headers })
    }
    await next()
  }
}

/** metadata makes a handler that answers with the metadata of the verifier's resource (RFC 9728), for app.get(metadataPath(resource), …). */
export function metadata(verifier) {
  const { status, headers, body } = verifier.metadata()
  return () => new Response(body, { status, headers })
}
