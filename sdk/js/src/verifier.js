import { authorizationOf, bearer, isLoopback, metadataPath, parseResource, refusal } from './answers.js'
import { Cache } from './cache.js'
import { age, systemClock } from './clock.js'
import { leewayMost, maxStalenessDefault, maxStalenessLeast } from './constants.js'
import { VerifyError } from './errors.js'
import { Feed } from './feed.js'
import { Follower } from './follower.js'
import { KeySource } from './keys.js'
import { secretBytes, secretKeys } from './keyset.js'
import { isScope, judgeAll, Requirement } from './requirements.js'
import { Digests, judge, parseHeader, verifySignature } from './token.js'

const metadataLife = 300 // seconds; they change only with the configuration

const names = new Set([
  'issuer', 'audience', 'resource', 'resourceName', 'scopesSupported', 'keySetUrl', 'secrets', 'revocationsUrl', 'withoutRevocations',
  'maxStaleness', 'onStale', 'cacheSize', 'leeway', 'fetch', 'clock', 'logger',
])

/** createVerifier makes a Verifier and starts it. The server need not be reachable yet. */
export const createVerifier = options => new Verifier(options)

/**
 * A Verifier checks access tokens in memory. In the background it keeps the key set fresh and follows
 * the feed of revocations, until close is called.
 */
export class Verifier {
  #options
  #clock
  #keys
  #feed // undefined: without revocations
  #follower
  #cache
  #stop = new AbortController()
  #background

  constructor(options) {
    const o = (this.#options = complete(options))
    const secrets = o.secrets.length ? secretKeys(secretBytes(o.secrets)) : undefined
    delete o.secrets // nothing that prints the verifier shows them
    this.#clock = o.clock
    const parts = { ...o, secretKeys: secrets, signal: this.#stop.signal }
    this.#keys = new KeySource(parts)
    this.#cache = new Cache(o.cacheSize)
    const running = [this.#keys.run()]
    if (!o.withoutRevocations) {
      this.#feed = new Feed({ maxStaleness: o.maxStaleness * 1000, onStale: o.onStale, logger: o.logger })
      this.#follower = new Follower(this.#feed, parts)
      running.push(this.#follower.run())
    }
    this.#background = Promise.all(running)
  }

  /**
   * verify accepts a token and returns it, or throws a VerifyError. revocation_stale and
   * key_set_unavailable say nothing about the token; forbidden says that the token is good and does not
   * meet a requirement, reauthentication_required that it would meet all of them if its user
   * authenticated again. With every other code the token is not good.
   *
   * It waits for the network in two cases: until the first key set and the first page of the feed are
   * there, and for a key that is not known yet.
   */
  async verify(compact, ...conditions) {
    return this.verifyWith(conditionsOf(conditions), compact)
  }

  /** verifyWith is verify with conditions that conditionsOf has read before. */
  async verifyWith(conditions, compact) {
    let now = this.#clock()
    let entry = this.#remembered(compact, now)
    if (!entry) {
      entry = await this.#first(compact, now)
      now = this.#clock()
    }
    if (this.#feed && !this.#feed.confirmed) {
      await this.#follower.tried.promise
      now = this.#clock()
    }
    const { token, digests } = entry
    judge(token, this.#options, now.wall / 1000)
    this.#feed?.check(token, digests, now, conditions)
    if (conditions.required.length) judgeAll(conditions.required, token, { now: now.wall / 1000, leeway: this.#options.leeway })
    return token
  }

  /** #remembered returns a token that was verified before, if its key is still the same. */
  #remembered(compact, now) {
    const entry = this.#cache.get(compact)
    if (!entry) return undefined
    const key = this.#keys.state.key(entry.key.id, now)
    if (!key?.equals(entry.key)) {
      this.#cache.delete(compact)
      return undefined
    }
    return entry
  }

  /** #first verifies the signature of a token, and remembers it if it is good now. */
  async #first(compact, now) {
    const header = parseHeader(compact)
    const key = this.#keys.state.key(header.kid, now) ?? (await this.#keys.find(header.kid))
    const token = await verifySignature(header, key)
    judge(token, this.#options, this.#clock().wall / 1000)
    const entry = { token, key, digests: new Digests(token, key) }
    this.#cache.put(compact, entry)
    return entry
  }

  /**
   * authorize verifies the token in a request's Authorization header (RFC 6750 §2.1). The request is one
   * of Node's http and http2, or of the Fetch Standard.
   */
  async authorize(request, ...conditions) {
    return this.authorizeWith(conditionsOf(conditions), request)
  }

  /** authorizeWith is authorize with conditions that conditionsOf has read before. */
  async authorizeWith(conditions, request) {
    return this.verifyWith(conditions, bearer(authorizationOf(request)))
  }

  /** refusal returns the answer to a request for which authorize has thrown: {status, headers, body}. Any other error is thrown again. */
  refusal(error) {
    if (!(error instanceof VerifyError)) throw error
    return refusal(error, this.#options)
  }

  /** metadata returns the protected resource's metadata (RFC 9728) as an answer, and the path at which it is to be served. */
  metadata() {
    const { resource, resourceName, scopesSupported, issuer } = this.#options
    if (!resource) throw new Error('the verifier has no resource, and so no metadata')
    const body = {
      resource,
      authorization_servers: [issuer],
      bearer_methods_supported: ['header'],
      ...(scopesSupported?.length && { scopes_supported: scopesSupported }),
      ...(resourceName && { resource_name: resourceName }),
    }
    return {
      path: metadataPath(resource),
      status: 200,
      headers: { 'Content-Type': 'application/json', 'Cache-Control': `public, max-age=${metadataLife}` },
      body: `${JSON.stringify(body)}\n`,
    }
  }

  /** status is what the verifier knows at this moment, for a health page. */
  status() {
    const now = this.#clock()
    const confirmed = this.#feed?.confirmed
    return {
      keys: this.#keys.state.current(now).size,
      revocations: this.#feed?.list.size ?? 0,
      confirmed: confirmed ? new Date(confirmed.wall) : null,
      confirmedAge: confirmed ? age(confirmed, now) / 1000 : null,
      fresh: !this.#feed || this.#feed.within(this.#feed.maxStaleness, now),
    }
  }

  /** close ends what runs in the background, and returns when it has ended. */
  async close() {
    this.#stop.abort()
    await this.#background
  }
}

/** conditionsOf reads the conditions of a call or a route: requirements, and objects {maxStaleness, onStale}. */
export function conditionsOf(conditions) {
  const all = { required: [] }
  for (const one of conditions) {
    if (one instanceof Requirement) all.required.push(one)
    else Object.assign(all, routeOptions(one))
  }
  return all
}

function routeOptions(options) {
  // Of anything else, such as a promise of a requirement, there would be no names, and so no condition.
  const plain = options !== null && typeof options === 'object' && [Object.prototype, null].includes(Object.getPrototypeOf(options))
  if (!plain) throw new TypeError(`${String(options)} is neither a requirement nor {maxStaleness, onStale}`)
  const route = {}
  for (const [name, value] of Object.entries(options)) {
    if (name === 'maxStaleness') route.maxStaleness = number('maxStaleness', value, 0, Infinity) * 1000
    else if (name === 'onStale') route.onStale = oneOfStale(value)
    else throw new TypeError(`there is no condition ${name}`)
  }
  return route
}

function number(name, value, least, most) {
  if (typeof value !== 'number' || !(value >= least && value <= most)) throw new TypeError(`${name} is from ${least} to ${most}, not ${String(value)}`)
  return value
}

function typed(name, value, type) {
  if (typeof value !== type) throw new TypeError(`${name} is a ${type}, not ${String(value)}`)
}

function oneOfStale(value) {
  if (value !== 'refuse' && value !== 'accept') throw new TypeError(`onStale is "refuse" or "accept", not ${String(value)}`)
  return value
}

/** complete checks the options and fills in what was left out. */
function complete(options) {
  for (const name of Object.keys(options ?? {})) if (!names.has(name)) throw new TypeError(`there is no option ${name}`)
  const o = { ...options }
  const strings = (name, value) => {
    if (!Array.isArray(value) || value.some(one => typeof one !== 'string' || !one)) throw new TypeError(`${name} is not a list of strings with something in them`)
    return [...value]
  }
  // It is the realm of challenges.
  if (typeof o.issuer !== 'string' || !isScope(o.issuer)) throw new TypeError('the issuer is not a string of printable ASCII without spaces, quotes and backslashes')
  o.audience = strings('audience', o.audience === undefined ? [o.issuer] : [o.audience].flat())
  if (!o.audience.length) o.audience = [o.issuer]
  o.secrets = strings('secrets', o.secrets ?? [])
  const base = o.issuer.replace(/\/$/, '')
  o.keySetUrl ??= `${base}/.well-known/jwks.json`
  o.revocationsUrl ??= `${base}/api/revocations`
  o.logger = careful(o.logger ?? console)
  checkUrl('issuer', o.issuer)
  for (const [name, what] of [['keySetUrl', 'key set'], ['revocationsUrl', 'feed of revocations']]) {
    const url = checkUrl(name, o[name])
    if (url.protocol === 'http:' && !isLoopback(url.hostname)) {
      o.logger.warn(`the ${what} is fetched without TLS: an attacker on the network can change it`, { url: o[name] })
    }
  }
  if (o.resourceName !== undefined) typed('resourceName', o.resourceName, 'string')
  if (o.resource !== undefined) parseResource(o.resource)
  else if (o.resourceName || o.scopesSupported?.length) throw new TypeError('there is a name or there are scopes of a resource, but no resource')
  if (o.scopesSupported !== undefined) {
    o.scopesSupported = strings('scopesSupported', o.scopesSupported)
    for (const one of o.scopesSupported) if (!isScope(one)) throw new TypeError(`${JSON.stringify(one)} cannot be a scope (RFC 6749 §3.3)`)
  }
  o.maxStaleness = number('maxStaleness', o.maxStaleness ?? maxStalenessDefault / 1000, maxStalenessLeast / 1000, 86400)
  o.onStale = oneOfStale(o.onStale ?? 'refuse')
  o.cacheSize = number('cacheSize', o.cacheSize ?? 4096, 0, 2 ** 24)
  o.leeway = number('leeway', o.leeway ?? 0, 0, leewayMost / 1000)
  o.clock ??= systemClock
  o.fetch ??= (...request) => fetch(...request)
  o.withoutRevocations ??= false
  for (const name of ['clock', 'fetch']) typed(name, o[name], 'function')
  typed('withoutRevocations', o.withoutRevocations, 'boolean')
  return o
}

/** careful makes a logger of one that may throw. What the verifier does, does not hang on it. */
function careful(logger) {
  const levels = {}
  for (const level of ['info', 'warn', 'error']) {
    typed(`logger.${level}`, logger[level], 'function')
    levels[level] = (...line) => {
      try {
        logger[level](...line)
      } catch {
        // there is nobody to tell
      }
    }
  }
  return levels
}

function checkUrl(name, address) {
  let url
  try {
    url = new URL(address)
  } catch {
    // said below
  }
  // Fetch refuses such a URL, and quotes it.
  if (url?.username || url?.password) throw new TypeError(`the ${name} has a user or a password, which fetch does not take`)
  if (url?.protocol !== 'https:' && url?.protocol !== 'http:') throw new TypeError(`the ${name} (${String(address)}) is not an http or https URL`)
  return url
}
