// What is known to be revoked: digests in typed arrays, because a million objects would take
// several times the memory.

import { sha256 } from './sha256.js'

/** What an entry may revoke, in the order in which a token is checked. */
export const kinds = ['kid', 'user', 'sid', 'jti']

const encoder = new TextEncoder()

/**
 * digest stands for a key, user, session or token, without revealing it: the first 128 bits of
 * SHA-256 over the kind, a zero byte, and the value, as four numbers of 32 bits.
 */
export const digest = (kind, value) => sha256(encoder.encode(`${kind}\0${value}`)).subarray(0, 4)

// The six bits of each character of base64url (RFC 4648 §5); 64 is none.
const sextets = new Uint8Array(128).fill(64)
for (const [i, c] of [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'].entries()) sextets[c.charCodeAt(0)] = i

/**
 * parseDigest reads the id of an entry: base64url of 16 bytes, of which the last four bits belong to
 * nothing. A service that starts reads a million of them, so nothing is made in between.
 */
function parseDigest(text) {
  const id = new Int32Array(4)
  let valid = typeof text === 'string' && text.length === 22
  for (let i = 0, word = 0, bits = 0, at = 0; valid && i < 22; i++) {
    const code = text.charCodeAt(i)
    const six = code < 128 ? sextets[code] : 64
    valid = six < 64 && (i < 21 || (six & 15) === 0)
    const left = Math.min(6, 32 - bits) // of the six, how many belong to this word
    word = (word << left) | (six >> (6 - left))
    bits += left
    if (bits === 32) {
      id[at++] = word
      bits = 6 - left
      word = six & ((1 << bits) - 1)
    }
  }
  if (!valid) throw new Error(`${JSON.stringify(text)} is not the base64url of 16 bytes`)
  return id
}

const whole = (entry, name) => {
  const n = entry[name] ?? 0
  if (!Number.isSafeInteger(n)) throw new Error(`an entry's ${name} is not a whole number`)
  return n
}

/**
 * parseEntry checks an entry of the feed. An unknown kind is an error: a reader that does not
 * understand an entry must not count as knowing what was revoked.
 */
export function parseEntry(entry) {
  if (entry === null || typeof entry !== 'object') throw new Error('an entry is not an object')
  const kind = kinds.indexOf(entry.kind)
  const seq = whole(entry, 'seq')
  const epoch = whole(entry, 'epoch')
  const issuedBefore = whole(entry, 'issued_before')
  const expiresAt = whole(entry, 'exp')
  if (seq < 1) throw new Error(`an entry with the sequence number ${seq}`)
  if (kind < 0) throw new Error(`the entry ${seq} is of the unknown kind ${JSON.stringify(entry.kind)}`)
  if (expiresAt <= 0) throw new Error(`the entry ${seq} has no expiry`)
  if (epoch < 0 || issuedBefore < 0) throw new Error(`the entry ${seq} has a negative epoch or time`)
  if ((kinds[kind] === 'user') !== (epoch > 0 || issuedBefore > 0)) {
    throw new Error(`the entry ${seq}: a user, and nothing else, is revoked up to an epoch or a time`)
  }
  return { seq, kind, id: parseDigest(entry.id), epoch, issuedBefore, expiresAt }
}

const shardCount = 64

/**
 * A Shard is a hash table with linear probing. A slot is free if its expiresAt is 0. At most four
 * fifths are in use. Users' entries have an epoch and an issuedBefore as well.
 */
class Shard {
  constructor(user, size = 16) {
    this.used = 0
    this.ids = new Int32Array(4 * size)
    this.expiresAt = new Float64Array(size)
    this.epoch = user && new Float64Array(size)
    this.issuedBefore = user && new Float64Array(size)
  }

  /** slot returns where id is or would be. There is always a free one. */
  slot(ids, at = 0) {
    const size = this.expiresAt.length
    let slot = (ids[at + 1] >>> 0) % size
    while (this.expiresAt[slot]) {
      const i = 4 * slot
      if (this.ids[i] === ids[at] && this.ids[i + 1] === ids[at + 1] && this.ids[i + 2] === ids[at + 2] && this.ids[i + 3] === ids[at + 3]) break
      if (++slot === size) slot = 0
    }
    return slot
  }

  /** put adds an entry. Of two entries for one id the stronger of each bound is kept. */
  put(ids, at, expiresAt, epoch, issuedBefore) {
    const slot = this.slot(ids, at)
    if (!this.expiresAt[slot]) {
      for (let i = 0; i < 4; i++) this.ids[4 * slot + i] = ids[at + i]
      this.used++
    }
    this.expiresAt[slot] = Math.max(this.expiresAt[slot], expiresAt)
    if (!this.epoch) return
    this.epoch[slot] = Math.max(this.epoch[slot], epoch)
    this.issuedBefore[slot] = Math.max(this.issuedBefore[slot], issuedBefore)
  }

  /** rebuilt returns a shard with room for more, without what expired before a time. */
  rebuilt(before) {
    let live = 0
    for (const at of this.expiresAt) if (at && at >= before) live++
    let size = 16
    while (5 * (live + 1) > 4 * size) size += size / 2 & ~1
    const fresh = new Shard(this.epoch !== false, size)
    this.expiresAt.forEach((at, slot) => {
      if (at && at >= before) fresh.put(this.ids, 4 * slot, at, this.epoch && this.epoch[slot], this.issuedBefore && this.issuedBefore[slot])
    })
    return fresh
  }
}

/** A List is what is known to be revoked. */
export class List {
  constructor() {
    this.tables = kinds.map(kind => Array.from({ length: shardCount }, () => new Shard(kind === 'user')))
    this.counts = kinds.map(() => 0)
    this.turn = 0 // which shard is swept next
  }

  get size() {
    return this.counts.reduce((sum, n) => sum + n)
  }

  /** apply adds entries that parseEntry has checked. It does no harm to add one twice, or in another order. */
  apply(entries) {
    for (const { kind, id, expiresAt, epoch, issuedBefore } of entries) {
      const table = this.tables[kind]
      const at = id[0] & (shardCount - 1)
      let shard = table[at]
      if (5 * (shard.used + 1) > 4 * shard.expiresAt.length) {
        // Twice the room, because the one that is to be put is one too many for a shard of this size.
        table[at] = shard = shard.rebuilt(0)
      }
      const used = shard.used
      shard.put(id, 0, expiresAt, epoch, issuedBefore)
      this.counts[kind] += shard.used - used
    }
  }

  /**
   * revoked reports whether a token is revoked, by its digests: of(kind) gives the one of a kind, by its
   * index in kinds, or undefined if the token has none.
   */
  revoked(digests, epoch, issuedAt) {
    for (let kind = 0; kind < kinds.length; kind++) {
      const id = this.counts[kind] ? digests.of(kind) : undefined
      if (!id) continue
      const shard = this.tables[kind][id[0] & (shardCount - 1)]
      const slot = shard.slot(id)
      if (!shard.expiresAt[slot]) continue
      if (!shard.epoch || epoch < shard.epoch[slot] || Math.floor(issuedAt) < shard.issuedBefore[slot]) return true
    }
    return false
  }

  /**
   * sweep forgets what expired before a time, in seconds since 1970: in one of 64 parts at each call,
   * so that no request waits for all of them.
   */
  sweep(before) {
    const at = this.turn
    this.turn = (at + 1) % shardCount
    this.tables.forEach((table, kind) => {
      const shard = table[at]
      if (!shard.expiresAt.some(expiresAt => expiresAt && expiresAt < before)) return
      table[at] = shard.rebuilt(before)
      this.counts[kind] += table[at].used - shard.used
    })
  }
}
