// Keys that verify tokens: one public key or one shared secret, bound to one name and one
// algorithm. The algorithm is a property of the key, never of the token (RFC 8725 §3.1).

import { importJWK } from 'jose'

import { decode } from './base64url.js'
import { keySetLength, kidLength, rsaBitsLeast, rsaBitsMost } from './constants.js'
import { decodeObject } from './json.js'
import { digest } from './revoked.js'

/** The signature algorithms of public keys, and those of shared secrets. */
export const algorithms = ['ES256', 'ES384', 'ES512', 'EdDSA', 'RS256', 'PS256']
export const secretAlgorithms = { HS256: 32, HS384: 48, HS512: 64 } // with the least length of a secret, in bytes

/** What the algorithms are for crypto.subtle.verify (RFC 7518 §3, RFC 8037 §3.1). The hash of an RSA key or a secret is a property of the CryptoKey. */
export const operations = {
  ES256: { name: 'ECDSA', hash: 'SHA-256' }, ES384: { name: 'ECDSA', hash: 'SHA-384' }, ES512: { name: 'ECDSA', hash: 'SHA-512' },
  EdDSA: { name: 'Ed25519' }, RS256: { name: 'RSASSA-PKCS1-v1_5' }, PS256: { name: 'RSA-PSS', saltLength: 32 },
  HS256: { name: 'HMAC' }, HS384: { name: 'HMAC' }, HS512: { name: 'HMAC' },
}

const curves = { 'P-256': ['ES256', 32], 'P-384': ['ES384', 48], 'P-521': ['ES512', 66] }

/** A JWK that is well-formed but not for us: a key set may hold such keys (RFC 7517 §5). */
class Unsupported extends Error {}

/** isKeyId holds for the names of keys and for the kid of a token: printable ASCII without spaces. */
export const isKeyId = id => typeof id === 'string' && id.length <= kidLength && /^[!-~]+$/.test(id) && !id.endsWith('\n')

class Key {
  constructor(id, algorithm, cryptoKey, material) {
    this.id = id
    this.algorithm = algorithm
    this.cryptoKey = cryptoKey
    this.digest = digest('kid', id)
    this.material = material // what makes it this key, as text; a secret has none
    Object.freeze(this)
  }

  /** equals reports whether both are the same key, with the same algorithm. */
  equals(other) {
    return this === other || (this.material !== undefined && this.material === other.material)
  }
}

/**
 * parseKeySet reads a JWK Set (RFC 7517 §5) and returns its keys by their kids. A key that is not
 * for us is passed over; one of ours that is broken, a private key, or one kid for two keys makes
 * the whole set an error, so that half a set is never taken for all of it.
 */
export async function parseKeySet(bytes) {
  if (bytes.length > keySetLength) throw new Error(`a key set of more than ${keySetLength} bytes`)
  const { keys } = decodeObject(bytes)
  if (!Array.isArray(keys)) throw new Error('the member keys of the key set is not an array')
  const set = new Map()
  for (const jwk of keys) {
    const key = await parseKey(jwk).catch(err => {
      if (!(err instanceof Unsupported)) throw err
    })
    if (!key) continue
    if (set.has(key.id) && !set.get(key.id).equals(key)) throw new Error(`the kid ${JSON.stringify(key.id)} names two keys`)
    if (!set.has(key.id)) set.set(key.id, key)
  }
  return set
}

async function parseKey(jwk) {
  if (jwk === null || typeof jwk !== 'object' || Array.isArray(jwk)) throw new Error('a key is not an object')
  for (const name of ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']) {
    if (Object.hasOwn(jwk, name)) throw new Error(`a key has the private member ${name}, which must never be published`)
  }
  const text = {}
  for (const name of ['kty', 'use', 'alg', 'kid', 'crv', 'x', 'y', 'n', 'e']) {
    if (!Object.hasOwn(jwk, name)) continue
    if (typeof jwk[name] !== 'string') throw new Error(`the member ${name} of a key is not a string`)
    text[name] = jwk[name]
  }
  const { kty, use, alg, kid, crv } = text
  if (!kty) throw new Error('a key has no kty')
  if (use !== undefined && use !== 'sig') throw new Unsupported('use')
  checkOperations(jwk)
  if (!kid) throw new Unsupported('no kid')
  const { algorithm, ...members } = checkMaterial(text, kty, alg || undefined, crv)
  if (!isKeyId(kid)) throw new Error('a kid is not printable ASCII of 1 to 256 bytes')
  const cryptoKey = await importJWK(members, algorithm).catch(err => {
    // This machine does not have the algorithm: the key is not for it.
    if (err?.name === 'NotSupportedError') throw new Unsupported(algorithm)
    throw new Error(`the key ${kid} cannot be imported`, { cause: err })
  })
  return new Key(kid, algorithm, cryptoKey, JSON.stringify([algorithm, members]))
}

/** checkOperations respects key_ops (RFC 7517 §4.3). */
function checkOperations(jwk) {
  if (!Object.hasOwn(jwk, 'key_ops')) return
  const ops = jwk.key_ops
  if (!Array.isArray(ops) || ops.some(op => typeof op !== 'string')) throw new Error('key_ops is not an array of strings')
  if (new Set(ops).size < ops.length) throw new Error('key_ops names an operation twice')
  if (!ops.includes('verify')) throw new Unsupported('key_ops')
}

/**
 * checkMaterial returns the algorithm of a key and those members that are the key. Coordinates
 * have their full length, and numbers the fewest bytes (RFC 7518 §6, RFC 8037 §2). Whether a point
 * is on its curve is seen when it is imported.
 */
function checkMaterial({ x, y, n, e }, kty, alg, crv) {
  switch (kty) {
    case 'EC': {
      const [algorithm, size] = (Object.hasOwn(curves, crv) && curves[crv]) || []
      if (!algorithm || (alg ?? algorithm) !== algorithm) throw new Unsupported(`${crv}, ${alg}`)
      for (const coordinate of [x, y]) {
        if (decode(coordinate).length !== size) throw new Error(`a coordinate of ${crv} does not have ${size} bytes`)
      }
      return { algorithm, kty, crv, x, y }
    }
    case 'OKP':
      if (crv !== 'Ed25519' || (alg ?? 'EdDSA') !== 'EdDSA') throw new Unsupported(`${crv}, ${alg}`)
      if (decode(x).length !== 32) throw new Error('x of Ed25519 does not have 32 bytes')
      return { algorithm: 'EdDSA', kty, crv, x }
    case 'RSA':
      if (alg !== 'RS256' && alg !== 'PS256') throw new Unsupported(`RSA, ${alg}`)
      checkRSA(decodeUint(n), decodeUint(e))
      return { algorithm: alg, kty, n, e }
  }
  throw new Unsupported(kty)
}

/** decodeUint reads a Base64urlUInt: the fewest bytes that hold the number (RFC 7518 §2). */
function decodeUint(text) {
  const bytes = decode(text)
  if (!bytes[0]) throw new Error('not a number in the fewest bytes')
  return BigInt(`0x${Array.from(bytes, byte => byte.toString(16).padStart(2, '0')).join('')}`)
}

function checkRSA(n, e) {
  const bits = n.toString(2).length
  if (bits < rsaBitsLeast || bits > rsaBitsMost) throw new Error(`an RSA modulus has ${rsaBitsLeast} to ${rsaBitsMost} bits, not ${bits}`)
  if (n % 2n === 0n) throw new Error('an RSA modulus is even')
  if (e < 3n || e % 2n === 0n || e >= 1n << 31n) throw new Error('an RSA exponent is not an odd number from 3 to 2^31-1')
  if (isROCA(n)) throw new Error('an RSA key can be factored (CVE-2017-15361)')
}

/**
 * isROCA reports whether the modulus comes from the library of certain Infineon chips, whose keys
 * can be factored: modulo each of these primes it is a power of 65537. One good key in 2^27 looks
 * so too. See https://crocs.fi.muni.cz/public/papers/rsa_ccs17.
 */
function isROCA(n) {
  return [11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157].every(p => {
    const remainder = Number(n % BigInt(p))
    for (let i = 0, power = 1; i < p; i++, power = (power * 65537) % p) {
      if (power === remainder) return true
    }
    return false
  })
}

/**
 * secretKeys makes the keys of shared secrets, by their kids: one for each algorithm for which a
 * secret is long enough. A kid is derived from the secret and the algorithm by a truncated HMAC, so
 * that all who have the secret give the key the same name, which does not reveal it.
 */
export async function secretKeys(secrets) {
  const keys = new Map()
  for (const bytes of secrets) {
    const naming = await hmacKey(bytes, 'SHA-256', 'sign')
    for (const [algorithm, least] of Object.entries(secretAlgorithms)) {
      if (bytes.length < least) break
      const label = new TextEncoder().encode(`watchword signing secret 1: ${algorithm}`)
      const mac = new Uint8Array(await crypto.subtle.sign('HMAC', naming, label)).subarray(0, 16)
      const kid = btoa(String.fromCharCode(...mac)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')
      keys.set(kid, new Key(kid, algorithm, await hmacKey(bytes, algorithm.replace('HS', 'SHA-'), 'verify')))
    }
  }
  return keys
}

const hmacKey = (bytes, hash, use) => crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash }, false, [use])

/** secretBytes checks the texts of shared secrets. */
export function secretBytes(secrets) {
  const all = secrets.map((text, i) => {
    if (typeof text !== 'string') throw new TypeError(`secret ${i + 1} of ${secrets.length} is not a string`)
    const bytes = new TextEncoder().encode(text)
    if (bytes.length < secretAlgorithms.HS256) throw new TypeError(`secret ${i + 1} of ${secrets.length}: a secret for HS256 has at least 32 bytes, not ${bytes.length}`)
    return bytes
  })
  if (new Set(secrets).size < secrets.length) throw new TypeError('a secret is in the list twice')
  return all
}
