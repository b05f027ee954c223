// What requests say, and what they are answered when they are refused.

import { VerifyError } from './errors.js'
import { isScope } from './requirements.js'

/**
 * bearer returns the token in a request's Authorization headers (RFC 6750 §2.1, RFC 9110 §11.4): the
 * scheme in any case, one or more spaces, the token. There must be exactly one such header, because a
 * service behind this one might read another of several. The token is not looked at.
 */
export function bearer(authorization) {
  if (authorization.length > 1) throw new VerifyError('invalid_request')
  const header = trimmed(authorization[0] ?? '', ' \t')
  const space = header.indexOf(' ')
  if (space < 0 || header.slice(0, space).toLowerCase() !== 'bearer') throw new VerifyError('token_missing')
  return trimmed(header.slice(space), ' ')
}

/**
 * trimmed takes the characters away at both ends. A regular expression would begin anew at each of a
 * row of spaces, and anybody can send a header full of them.
 */
function trimmed(text, characters) {
  let from = 0
  let to = text.length
  while (from < to && characters.includes(text[from])) from++
  while (from < to && characters.includes(text[to - 1])) to--
  return text.slice(from, to)
}

/**
 * authorizationOf returns the Authorization headers of a request: of Node (rawHeaders, because headers
 * has only the first of several), or of the Fetch Standard, which joins several with commas. A token
 * has no comma.
 */
export function authorizationOf(request) {
  if (Array.isArray(request?.rawHeaders)) {
    return request.rawHeaders.filter((_, i, all) => i % 2 === 1 && all[i - 1].toLowerCase() === 'authorization')
  }
  if (typeof request?.headers?.get !== 'function') throw new TypeError('this is neither a request of Node nor of the Fetch Standard')
  const value = request.headers.get('Authorization')
  if (value === null || value === undefined) return []
  return /,[ \t]*bearer[ \t]/i.test(value) ? value.split(',') : [value]
}

const titles = { 400: 'Bad Request', 401: 'Unauthorized', 403: 'Forbidden', 503: 'Service Unavailable' }

const challenges = { token_missing: undefined, invalid_request: 'invalid_request', forbidden: 'insufficient_scope', reauthentication_required: 'insufficient_user_authentication' }

/**
 * refusal returns the answer to a request that is refused: problem details (RFC 9457), and a challenge
 * by RFC 6750 §3, RFC 9470 §3 and RFC 9728 §5.1.
 */
export function refusal(error, { issuer, resource }) {
  const { status, code, detail } = error
  const headers = { 'Content-Type': 'application/problem+json', 'Cache-Control': 'no-store' }
  if (status === 503) headers['Retry-After'] = '1'
  else headers['WWW-Authenticate'] = challenge(error, issuer, resource)
  return { status, headers, body: `${JSON.stringify({ type: 'about:blank', title: titles[status], status, detail, code })}\n` }
}

function challenge({ code, reauthentication: again, scope }, issuer, resource) {
  const parameters = [['realm', issuer]]
  const error = Object.hasOwn(challenges, code) ? challenges[code] : 'invalid_token'
  // Without a token there is no error code (RFC 6750 §3.1).
  if (error) parameters.push(['error', error], ['error_description', code])
  if (again?.maxAge) parameters.push(['max_age', again.maxAge])
  // What a header cannot hold is left out.
  const values = again?.acrValues?.filter(isScope)
  if (values?.length) parameters.push(['acr_values', values.join(' ')])
  if (scope?.length) parameters.push(['scope', scope.join(' ')])
  if (resource) parameters.push(['resource_metadata', metadataUrl(resource)])
  return `Bearer ${parameters.map(([name, value]) => `${name}="${value}"`).join(', ')}`
}

const wellKnown = '/.well-known/oauth-protected-resource'

/**
 * parseResource reads the URL of a resource (RFC 9728 §1.2). On the machine itself it may lack TLS, for
 * tests.
 */
export function parseResource(resource) {
  const fault = what => new TypeError(`the resource (${String(resource)}) ${what}`)
  if (typeof resource !== 'string' || !/^https?:\/\/(?![/?#])[!#-[\]-~]+$/.test(resource)) throw fault('is not an https URL, or has characters that have to be percent-encoded')
  let url
  try {
    url = new URL(resource)
  } catch {
    throw fault('is not an https URL')
  }
  if (url.protocol !== 'https:' && !isLoopback(url.hostname)) throw fault('is not an https URL')
  if (url.username || url.password) throw fault('names a user')
  if (resource.includes('#')) throw fault('has a fragment')
  if (resource.endsWith('?')) throw fault('has an empty query')
  const path = /^https?:\/\/[^/?]*([^?]*)/.exec(resource)[1]
  if (/\/(\.{0,2}|%2e|\.%2e|%2e\.|%2e%2e)(\/|$)/i.test(path.replace(/\/$/, ''))) throw fault('has a path with segments that are empty, . or ..')
  return url
}

/** isLoopback reports whether a host of a URL is this machine. */
export const isLoopback = host => host === 'localhost' || host === '[::1]' || /^127(\.\d+){3}$/.test(host)

/** metadataPath is where clients look for the metadata of a resource: the well-known path, followed by that of the resource (RFC 9728 §3.1). */
export function metadataPath(resource) {
  const { pathname } = parseResource(resource)
  return wellKnown + (pathname === '/' ? '' : pathname)
}

/** metadataUrl is metadataPath with the host, and with the query of a resource that has one. */
function metadataUrl(resource) {
  const { origin, search } = parseResource(resource)
  return origin + metadataPath(resource) + search
}
