// The parts by themselves.

import assert from 'node:assert/strict'
import { createHash, randomBytes, randomInt } from 'node:crypto'
import test from 'node:test'

import { decode, fault } from '../src/base64url.js'
import { Cache } from '../src/cache.js'
import { decodeObject } from '../src/json.js'
import { digest, List, parseEntry } from '../src/revoked.js'
import { sha256 } from '../src/sha256.js'
import { idOf } from './issuer.js'

test('sha256 is SHA-256', () => {
  for (let length = 0; length < 300; length++) {
    const bytes = randomBytes(length)
    const words = sha256(bytes)
    const got = Buffer.alloc(32)
    words.forEach((word, i) => got.writeInt32BE(word, 4 * i))
    assert.equal(got.toString('hex'), createHash('sha256').update(bytes).digest('hex'), `${length} bytes`)
  }
})

test('base64url has one spelling', () => {
  for (let length = 0; length < 50; length++) {
    const bytes = randomBytes(length)
    assert.deepEqual(Buffer.from(decode(bytes.toString('base64url'))), bytes)
  }
  for (const wrong of ['A', 'AB', 'ABCDE', 'AAA=', 'A A', 'AAAA\n', '\nAAAA', 'AAA+', 'AAA/', 'AAAé', 'AAB']) assert(fault(wrong), JSON.stringify(wrong))
  assert.throws(() => decode(undefined))
})

test('what the strict reader of JSON takes, JSON.parse reads alike', () => {
  const bytes = text => new TextEncoder().encode(text)
  for (const text of [
    '{}', ' {"a" : [1, 2.5e3, -0, true, false, null, {"b": "c"}] }\n', '{"a":"\\u00fc\\n\\"\\ud83d\\ude00","ü":"日"}', '{"__proto__":{"admin":true},"constructor":1}', '{"":""}', '{"a":{"a":{"a":1}}}',
  ]) {
    assert.deepEqual(decodeObject(bytes(text)), JSON.parse(text), text)
  }
  assert.equal(Object.getPrototypeOf(decodeObject(bytes('{"__proto__":{"admin":true}}'))), Object.prototype)
  const numbers = new Map()
  decodeObject(bytes('{"a":1.0,"b":{"c":2},"d":[3],"e":18446744073709551615}'), numbers)
  assert.deepEqual([...numbers], [['a', '1.0'], ['e', '18446744073709551615']])
  for (const text of [
    '', ' ', '[]', 'null', '1', '"a"', '{', '{}{}', '{} x', '{"a"}', '{"a":}', '{"a":1,}', '{,}', "{'a':1}", '{a:1}', '{"a":01}', '{"a":.5}', '{"a":1.}', '{"a":+1}', '{"a":NaN}', '{"a":tru}',
    '{"a":"\t"}', '{"a":"\\x"}', '{"a":"\\u12"}', '{"a":"b', '{"a":1 "b":2}', '{"a":[1,]}', '{"a":[1 2]}', '\ufeff{}', '\u00a0{}', '{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '{"x":{"a":1,"a":2}}',
    '{"x":[{"__proto__":1,"__proto__":2}]}', `{"a":${'['.repeat(17)}${']'.repeat(17)}}`, '{"\\ud800":1,"\\udfff":2}',
  ]) {
    assert.throws(() => decodeObject(bytes(text)), text)
  }
  assert.throws(() => decodeObject(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)), 'not UTF-8')
  assert(decodeObject(bytes(`{"a":${'['.repeat(16)}${']'.repeat(16)}}`)))
})

test('the list knows what a Map would know', () => {
  const list = new List()
  const model = new Map()
  const kinds = ['kid', 'user', 'sid', 'jti']
  const name = n => `name-${n}`
  for (let seq = 1; seq <= 20_000; seq++) {
    const kind = kinds[randomInt(4)]
    const entry = { seq, kind, id: '', exp: randomInt(1, 1000), ...(kind === 'user' && { epoch: randomInt(0, 5), issued_before: randomInt(1, 100) }) }
    const value = name(randomInt(5000))
    entry.id = idOf(kind, value)
    list.apply([parseEntry(entry)])
    const known = model.get(kind + value) ?? { exp: 0, epoch: 0, issued_before: 0 }
    model.set(kind + value, {
      exp: Math.max(known.exp, entry.exp), epoch: Math.max(known.epoch, entry.epoch ?? 0), issued_before: Math.max(known.issued_before, entry.issued_before ?? 0),
    })
  }
  const compare = () => {
    assert.equal(list.size, model.size)
    for (let n = 0; n < 6000; n++) {
      for (const [i, kind] of kinds.entries()) {
        const digests = { of: at => (at === i ? digest(kind, name(n)) : undefined) }
        const known = model.get(kind + name(n))
        for (const [epoch, issuedAt] of [[0, 1e9], [3, 50.5], [4, 99.9], [9, 100]]) {
          const want = known !== undefined && (kind !== 'user' || epoch < known.epoch || Math.floor(issuedAt) < known.issued_before)
          assert.equal(list.revoked(digests, epoch, issuedAt), want, `${kind} ${n} ${epoch} ${issuedAt}`)
        }
      }
    }
  }
  compare()
  for (const before of [1, 500, 1000]) {
    for (let part = 0; part < 64; part++) list.sweep(before)
    for (const [key, { exp }] of model) if (exp < before) model.delete(key)
    compare()
  }
  assert.equal(list.size, 0)
})

test('entries that are wrong are refused', () => {
  const good = { seq: 1, kind: 'sid', id: idOf('sid', 'x'), exp: 1 }
  parseEntry(good)
  for (let i = 0; i < 1000; i++) {
    const bytes = randomBytes(16)
    const { id } = parseEntry({ ...good, id: bytes.toString('base64url') })
    assert.deepEqual([...id], [0, 4, 8, 12].map(at => bytes.readInt32BE(at)))
  }
  for (const change of [
    { seq: 0 }, { seq: 1.5 }, { seq: '1' }, { seq: 2 ** 53 }, { kind: 'SID' }, { kind: undefined }, { kind: 'client' }, { id: good.id.slice(1) }, { id: `${good.id}=` }, { id: undefined }, { id: `${good.id.slice(0, 21)}B` }, { id: `${good.id.slice(0, 21)}é` }, { id: `+${good.id.slice(1)}` }, { id: `\n${good.id.slice(1)}` }, { exp: 0 }, { exp: -1 },
    { epoch: 1 }, { issued_before: 1 }, { kind: 'user' }, { kind: 'user', epoch: -1 }, { kind: 'user', epoch: 1, issued_before: -1 }, { kind: '__proto__' },
  ]) {
    assert.throws(() => parseEntry({ ...good, ...change }), JSON.stringify(change))
  }
  for (const wrong of [null, 1, 'x', []]) assert.throws(() => parseEntry(wrong))
})

test('the cache forgets what was not used for longest, and counts long tokens several times', () => {
  const cache = new Cache(3)
  for (const text of ['a', 'b', 'c']) cache.put(text, text)
  cache.get('a')
  cache.put('d', 'd')
  assert.deepEqual(['a', 'b', 'c', 'd'].map(text => cache.get(text)), ['a', undefined, 'c', 'd'])
  cache.put('x'.repeat(2048), 1)
  assert.equal(cache.length, 2)
  cache.put('x'.repeat(9000), 1)
  assert.equal(cache.length, 0, 'what is too large is not kept')
  cache.put('a', 'a')
  cache.delete('a')
  cache.put('a', 'a')
  cache.put('a', 'a')
  for (const text of ['b', 'c']) cache.put(text, text)
  assert.equal(cache.length, 3, 'putting a token twice counts once')
  const none = new Cache(0)
  none.put('a', 'a')
  assert.equal(none.get('a'), undefined)
})
