import { conditionsOf } from './verifier.js'

/**
 * requireToken makes a middleware that lets a request through only with a good token that meets every
 * condition; req.token is the token. It also works with connect and with http servers of Node.
 */
export function requireToken(verifier, ...conditions) {
  const read = conditionsOf(conditions)
  return (req, res, next) => {
    verifier.authorizeWith(read, req).then(
      token => {
        req.token = token
        next()
      },
      error => {
        try {
          const { status, headers, body } = verifier.refusal(error) // throws what is no refusal
          // Meanwhile something else, such as a time-out, may have answered.
          if (!res.headersSent) res.writeHead(status, headers).end(body)
        } catch (failure) {
          next(failure)
        }
      },
    )
  }
}

/** metadata makes a handler that answers with the metadata of the verifier's resource (RFC 9728), for app.get(metadataPath(resource), …). */
export function metadata(verifier) {
  const { status, headers, body } = verifier.metadata()
  return (req, res) => {
    res.writeHead(status, headers).end(body)
  }
}
