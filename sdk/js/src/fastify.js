import { conditionsOf } from './verifier.js'

/**
 * requireToken makes a hook for onRequest that lets a request through only with a good token that meets
 * every condition; request.token is the token.
 */
export function requireToken(verifier, ...conditions) {
  const read = conditionsOf(conditions)
  return async (request, reply) => {
    try {
      request.token = await verifier.authorizeWith(read, request.raw)
    } catch (error) {
      const { status, headers, body } = verifier.refusal(error) // throws what is no refusal
      return reply.code(status).headers(headers).send(bytes(body))
    }
  }
}

/** metadata makes a handler that answers with the metadata of the verifier's resource (RFC 9728), for app.get(metadataPath(resource), …). */
export function metadata(verifier) {
  const { status, headers, body } = verifier.metadata()
  return async (request, reply) => reply.code(status).headers(headers).send(bytes(body))
}

// To a string Fastify would add a charset, which JSON does not have (RFC 8259 §11).
const bytes = text => new TextEncoder().encode(text)
