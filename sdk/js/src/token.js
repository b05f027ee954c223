// The rules of an access token (RFC 9068 §4, RFC 8725 §3), without the network and without a clock.

import { base64url } from 'jose'

import { fault } from './base64url.js'
import { tokenLength } from './constants.js'
import { VerifyError } from './errors.js'
import { decodeObject } from './json.js'
import { algorithms, isKeyId, operations, secretAlgorithms } from './keyset.js'
import { isScope } from './requirements.js'
import { digest, kinds } from './revoked.js'

const encoder = new TextEncoder()
const malformed = (detail, cause) => new VerifyError('token_malformed', detail, { cause })

/**
 * parseHeader takes a token apart and judges all that can be judged without its key: the three
 * parts, each with only one spelling, and the header, which has no members but alg, typ and kid.
 * crit, cty, b64, jwk, jku, x5c and x5u would each change how a token is to be read or with what
 * key (RFC 7515 §4.1, RFC 7797, RFC 8725 §3.10).
 */
export function parseHeader(compact) {
  if (typeof compact !== 'string') throw malformed()
  if (compact.length > tokenLength) throw malformed(`the token is longer than ${tokenLength} bytes`)
  const parts = compact.split('.', 4)
  if (parts.length !== 3) throw malformed('the token does not have three parts separated by dots')
  for (const part of parts) {
    const wrong = fault(part)
    if (wrong === 'stray bits') throw malformed('a part of the token ends in bits that belong to nothing: it was changed or cut off')
    if (wrong) throw malformed('a part of the token is not base64url without padding')
  }
  if (parts[0] !== last.text) last = { text: parts[0], header: readHeader(parts[0]) }
  const [, payload, signature] = parts
  return { ...last.header, signed: compact.slice(0, -signature.length - 1), payload, signature }
}

// Nearly all tokens have the header of the one before.
let last = {}

function readHeader(text) {
  let header
  try {
    header = decodeObject(base64url.decode(text))
  } catch (err) {
    throw malformed("the token's header cannot be read", err)
  }
  for (const name of ['alg', 'typ', 'kid']) {
    if (Object.hasOwn(header, name) && typeof header[name] !== 'string') throw malformed(`the token's ${name} is not a string`)
  }
  const { alg = '', typ = '', kid = '' } = header
  if (kid && !isKeyId(kid)) throw malformed("the token's kid is not a key's id")
  for (const name of Object.keys(header).sort()) {
    if (name !== 'alg' && name !== 'typ' && name !== 'kid') {
      throw malformed(`the token's header has the member ${JSON.stringify(name.slice(0, 32))}, which an access token does not have`)
    }
  }
  // Access tokens alone, so that an ID token or a logout token signed with the same key is never
  // taken for one. Media types have no case (RFC 7515 §4.1.9).
  if (!/^(application\/)?at\+jwt$/i.test(typ) || typ.endsWith('\n')) throw new VerifyError('token_type')
  if (!algorithms.includes(alg) && !Object.hasOwn(secretAlgorithms, alg)) throw new VerifyError('token_algorithm')
  if (!kid) throw malformed('the token does not name its key (kid)')
  return { alg, kid }
}

/**
 * verifySignature checks the signature with the key that the header names, and returns the claims,
 * of which only the form has been judged. The key fixes the algorithm, so an HMAC is only ever
 * computed with a secret, and never with a public key. jose would read the header once more, for a
 * tenth of the time.
 */
export async function verifySignature(header, key) {
  if (key.algorithm !== header.alg) throw new VerifyError('token_algorithm', "the token's algorithm is not the one of the key that it names")
  const signature = base64url.decode(header.signature)
  const right = await crypto.subtle.verify(operations[key.algorithm], key.cryptoKey, signature, encoder.encode(header.signed)).catch(cause => {
    throw new VerifyError('token_signature', undefined, { cause })
  })
  if (right !== true) throw new VerifyError('token_signature')
  if (!isCanonical(header.alg, signature)) {
    throw malformed("the token's signature is in the form with the greater s, which Watchword does not issue: it was changed")
  }
  return parseClaims(base64url.decode(header.payload), key)
}

// Half the order of each curve, rounded down (SEC 2 §2.4, §2.5, §2.6).
const halfOrders = Object.fromEntries(Object.entries({
  ES256: '7fffffff800000007fffffffffffffffde737d56d38bcf4279dce5617e3192a8',
  ES384: '7fffffffffffffffffffffffffffffffffffffffffffffffe3b1a6c0fa1b96efac0d06d9245853bd76760cb5666294b9',
  ES512: '00fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffd28c343c1df97cb35bfe600a47b84d2e81ddae4dc44ce23d75db7db8f489c3204',
}).map(([alg, text]) => [alg, Uint8Array.from(text.match(/../g), byte => parseInt(byte, 16))]))

/**
 * isCanonical refuses the second form of a good ECDSA signature. With every signature (r, s),
 * (r, n−s) is good too, and anybody can compute one from the other without the key; so a client
 * could make another text of its token, which a list of texts would not know.
 */
function isCanonical(alg, signature) {
  const half = halfOrders[alg]
  if (!half) return true
  const s = signature.subarray(half.length)
  let i = 0
  while (i < half.length && s[i] === half[i]) i++
  return i === half.length || s[i] < half[i]
}

const lastSecond = 253402300799 // the end of the year 9999: what RFC 3339 can still say

/** parseClaims reads the payload: each required claim (RFC 9068 §2.2) is there, and each is of its type. */
function parseClaims(payload, key) {
  const numbers = new Map()
  let claims
  try {
    claims = decodeObject(payload, numbers)
  } catch (err) {
    throw malformed("the token's claims cannot be read", err)
  }
  const missing = name => new VerifyError('token_claim_missing', `the token lacks the claim ${name}`)
  const wrong = (name, what) => malformed(`the token's ${name} is not ${what}`)
  const read = (name, required, type) => {
    if (Object.hasOwn(claims, name)) return type(claims[name])
    if (required) throw missing(name)
  }
  const text = (name, required) =>
    read(name, required, value => {
      if (typeof value !== 'string' || !value) throw wrong(name, 'a string with something in it')
      return value
    })
  const texts = (name, required, what) => value => {
    const list = Array.isArray(value) ? value : required ? [value] : undefined
    if (!list?.every(one => typeof one === 'string' && one)) throw wrong(name, what)
    return Object.freeze(required ? [...list] : list)
  }
  const date = (name, required) =>
    read(name, required, value => {
      if (typeof value !== 'number' || !(value >= 0 && value <= lastSecond)) throw wrong(name, 'a number of seconds since 1970')
      return value
    })
  const token = {
    issuer: text('iss', true),
    subject: text('sub', true),
    audience: read('aud', true, texts('aud', true, 'a string or an array of strings')),
    id: text('jti', true),
    sessionId: text('sid', false),
    epoch: read('epoch', false, () => count(numbers.get('epoch'))) ?? 0,
    expiresAt: date('exp', true),
    // iat is a few seconds earlier in a token of Watchword, because many libraries refuse one that
    // lies in their future; iat_exact is the moment, where a token has it.
    issuedAt: Object.hasOwn(claims, 'iat_exact') ? (date('iat', true), date('iat_exact', true)) : date('iat', true),
    notBefore: date('nbf', false),
    authTime: date('auth_time', false),
    amr: read('amr', false, texts('amr', false, 'an array of strings')),
    acr: text('acr', false),
    scope: read('scope', false, value => {
      const list = typeof value === 'string' ? value.split(' ') : [value]
      if (!list.every(isScope)) throw wrong('scope', 'a string of scopes with one space between two of them')
      return Object.freeze(list)
    }),
  }
  return new Token(key.id, token, deepFreeze(claims))

  function count(digits) {
    if (digits === undefined) throw wrong('epoch', 'a number')
    if (!/^[0-9]+$/.test(digits.replace(/^-0$/, '0')) || BigInt(digits) >= 1n << 63n) throw wrong('epoch', 'a whole number')
    return Number(digits)
  }
}

/** A Token is an access token that was accepted. It never changes, so that callers may share it. */
export class Token {
  constructor(keyId, fields, claims) {
    this.keyId = keyId
    Object.assign(this, fields)
    this.claims = claims
    Object.freeze(this)
  }

  /** has reports whether the claim holds the value: several values are one string, joined with commas. */
  has(name, value) {
    const held = Object.hasOwn(this.claims, name) && this.claims[name]
    return value !== '' && typeof held === 'string' && held.split(',').includes(value)
  }
}

function deepFreeze(value) {
  if (value === null || typeof value !== 'object') return value
  for (const one of Object.values(value)) deepFreeze(one)
  return Object.freeze(value)
}

/** Digests are those of a token's key, user, session and own id, as List.revoked asks for them. Each is made when it is needed first. */
export class Digests {
  #names
  #made

  constructor(token, key) {
    this.#names = [key.id, token.subject, token.sessionId, token.id]
    this.#made = [key.digest]
  }

  /** of returns the digest of a kind, by its index in kinds, or undefined if the token has no such name. */
  of(kind) {
    const name = this.#names[kind]
    return name === undefined ? undefined : (this.#made[kind] ??= digest(kinds[kind], name))
  }
}

/**
 * judge holds the claims against issuer, audience and times (RFC 7519 §4.1, RFC 9068 §4). now and
 * leeway are in seconds. iat is not judged: no RFC asks for it, and a replica whose clock is a
 * little ahead would have its tokens refused.
 */
export function judge(token, { issuer, audience, leeway }, now) {
  if (token.issuer !== issuer) throw new VerifyError('token_issuer')
  if (!token.audience.some(one => audience.includes(one))) throw new VerifyError('token_audience')
  if (!(now < token.expiresAt + leeway)) throw new VerifyError('token_expired', `the token expired at ${rfc3339(token.expiresAt)}`)
  if (token.notBefore !== undefined && !(now >= token.notBefore - leeway)) {
    throw new VerifyError('token_not_yet_valid', `the token is not valid before ${rfc3339(token.notBefore)}`)
  }
}

const rfc3339 = seconds => `${new Date(seconds * 1000).toISOString().slice(0, 19)}Z`
