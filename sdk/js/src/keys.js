// The key set over time. KeyState decides and is told the time; KeySource fetches and waits.

import { after, age, random, retryPause, since, sleep } from './clock.js'
import {
  keyCooldown, keyLifeDefault, keyLifeLeast, keyLifeMost, keyLifeStale, keyOutage, keyRetryFirst, keyRetryMost, keySetLength, keyTimeout, kidLength,
  unknownKidKept, unknownKids,
} from './constants.js'
import { VerifyError } from './errors.js'
import { parseKeySet } from './keyset.js'
import { ageOf, get, Outage, readAll } from './network.js'

/** life is how long an answer is fresh (RFC 9111 §4.2), within the bounds above. */
function life(headers) {
  let life = keyLifeDefault
  for (const directive of (headers.get('Cache-Control') ?? '').toLowerCase().split(',')) {
    const [name, value = ''] = directive.trim().split('=', 2)
    if (name === 'no-store' || name === 'no-cache') return keyLifeStale
    const seconds = value.replace(/^"+|"+$/g, '')
    if (name === 'max-age' && /^\+?[0-9]+$/.test(seconds)) life = Math.min(Number(seconds) * 1000, keyLifeMost)
  }
  const left = life - ageOf(headers)
  return left <= 0 ? keyLifeStale : Math.max(left, keyLifeLeast)
}

const none = new Map()

/** A KeyState is what is known of the key set. It is told what happens and when. */
export class KeyState {
  /** hasOwn says whether there are keys of shared secrets. Then a set may be empty. */
  constructor(url, hasOwn) {
    this.url = url
    this.hasOwn = hasOwn
    this.own = none // the keys of shared secrets by kid; a key set cannot take their place
    this.set = new Map() // the last good one
    this.asOf = undefined // when the server last confirmed it
    this.etag = undefined
    this.begun = undefined // when the last fetch began
    this.running = false // a fetch runs, or was asked for
    this.failed = undefined // how the last one ended
    this.failures = 0 // in a row
    this.unknown = new Map() // kids that a fetch did not bring, and until when they count as unknown
  }

  /** current returns the set that may be used. */
  current(now) {
    return this.asOf && age(this.asOf, now) <= keyOutage ? this.set : none
  }

  /** key returns the key if it is there now. */
  key(kid, now) {
    return this.own.get(kid) ?? this.current(now).get(kid)
  }

  /** begin notes that a fetch begins. */
  begin(now) {
    this.begun = now
    this.running = true
  }

  /**
   * answer takes the answer to the last fetch, and returns how long it is fresh. An answer that is an
   * error, garbage, or empty changes nothing.
   */
  async answer({ status, headers, body }) {
    const asOf = after(this.begun, -ageOf(headers)) // it may come from a cache
    if (status === 304 && this.etag) {
      this.asOf = asOf
      return life(headers)
    }
    if (status !== 200) throw new Error(`${this.url} answers ${status}`)
    const set = await parseKeySet(body)
    if (!set.size && !this.hasOwn) throw new Error(`${this.url} answers with a set without keys`)
    this.set = set
    this.asOf = asOf
    this.etag = headers.get('ETag') ?? undefined
    return life(headers)
  }

  /** end notes how a fetch ended, and returns between which times the next one begins. */
  end(error, life) {
    this.running = false
    this.failed = error
    if (error) return retryPause(this.failures++, keyRetryFirst, keyRetryMost)
    this.failures = 0
    return { least: life * 0.9, most: life * 0.98 }
  }

  /**
   * find returns the key, or undefined if the caller has to wait for the end of a fetch. It throws
   * if a fetch, not long ago, did not bring it, or if it is too early for one. wanted is called if a
   * fetch is to begin.
   */
  find(kid, now, wanted) {
    const key = this.key(kid, now)
    if (key) return key
    if (kid.length > kidLength || now.monotonic < this.unknown.get(kid)) throw new VerifyError('token_key_unknown')
    const failed = this.failed
    if (!this.running) {
      const wait = this.begun ? keyCooldown - since(this.begun, now) : 0
      if (wait > 0) throw unavailable(new Error(`unknown kid; the next fetch may be in ${Math.ceil(wait)} ms`))
      this.running = true
      wanted()
    }
    if (failed) throw unavailable(failed) // the next one may hang, too
  }

  /** fetched returns the key after a fetch that find had the caller wait for. */
  fetched(kid, now) {
    const key = this.key(kid, now)
    if (key) return key
    if (this.failed) throw unavailable(this.failed)
    if (this.unknown.size >= unknownKids) this.unknown.clear() // costs a fetch at worst, and those are limited
    this.unknown.set(kid, now.monotonic + unknownKidKept)
    throw new VerifyError('token_key_unknown')
  }
}

const unavailable = cause => new VerifyError('key_set_unavailable', undefined, { cause })

/** A KeySource keeps the key set fresh. There is never more than one fetch at a time. */
export class KeySource {
  constructor({ keySetUrl, secretKeys, clock, fetch, logger, signal }) {
    this.state = new KeyState(keySetUrl, secretKeys !== undefined)
    this.secretKeys = secretKeys // a promise of keys by kid, or undefined
    this.clock = clock
    this.fetch = fetch
    this.signal = signal
    this.outage = new Outage(logger, 'the key set')
    this.tried = new Signal() // after the first fetch
    this.ended = new Signal() // of the present or requested fetch
    this.wake = new Signal() // asks run to fetch now
  }

  /** run fetches the key set: at once, then before each answer is too old, and when it is woken. */
  async run() {
    if (this.secretKeys) this.state.own = await this.secretKeys
    while (!this.signal.aborted) {
      this.wake = new Signal()
      await sleep(random(await this.refresh()), this.signal, this.wake.promise)
    }
    this.tried.set()
    this.ended.set()
  }

  async refresh() {
    const { state } = this
    state.begin(this.clock())
    let life
    let error
    try {
      life = await this.ask()
    } catch (err) {
      error = err
    }
    if (!this.signal.aborted) this.outage.note(error)
    const next = state.end(error, life)
    this.tried.set()
    this.ended.set()
    this.ended = new Signal()
    return next
  }

  ask() {
    const headers = { Accept: 'application/jwk-set+json, application/json' }
    if (this.state.etag) headers['If-None-Match'] = this.state.etag
    return get(this.fetch, this.state.url, { headers, signal: this.signal, timeout: keyTimeout }, async ({ status, headers, body }) =>
      this.state.answer({ status, headers, body: status === 200 ? await readAll(body, keySetLength) : undefined }))
  }

  /** find returns the key; it waits for the first fetch, and for a key that is not known yet. */
  async find(kid) {
    await this.secretKeys // run takes them first
    let key = this.state.key(kid, this.clock())
    if (key) return key
    if (kid.length > kidLength) throw new VerifyError('token_key_unknown')
    await this.tried.promise
    if (this.signal.aborted) throw unavailable(new Error('the verifier is closed'))
    key = this.state.find(kid, this.clock(), () => this.wake.set())
    if (key) return key
    await this.ended.promise
    if (this.signal.aborted) throw unavailable(new Error('the verifier is closed'))
    return this.state.fetched(kid, this.clock())
  }
}

/** A Signal is a promise that is kept when set is called. */
export class Signal {
  constructor() {
    this.promise = new Promise(resolve => {
      this.set = resolve
    })
  }
}
