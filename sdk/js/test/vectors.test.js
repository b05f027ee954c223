// The test vectors that verifiers of all languages are held to: testdata/verifier/README.md says
// what they mean.

import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import test from 'node:test'

import { bearer, metadataPath, refusal } from '../src/answers.js'
import * as constants from '../src/constants.js'
import { VerifyError } from '../src/errors.js'
import { EventReader } from '../src/events.js'
import { checkAnswer, Feed, Stream } from '../src/feed.js'
import { KeyState } from '../src/keys.js'
import { parseKeySet, secretBytes, secretKeys } from '../src/keyset.js'
import { readAll } from '../src/network.js'
import * as requirements from '../src/requirements.js'
import { digest } from '../src/revoked.js'
import { Token } from '../src/token.js'
import { createVerifier } from '../src/verifier.js'
import { idOf, silent } from './issuer.js'

const directory = new URL('../../../testdata/verifier/', import.meta.url)

const runners = {}

/** vectors runs the cases of a file, and prints how many there were. */
function vectors(name, run) {
  runners[name] = true
  const file = JSON.parse(readFileSync(new URL(`${name}.json`, directory), 'utf8'))
  assert(file.cases.length > 0)
  for (const one of file.cases) test(`${name}: ${one.name}`, t => run(one, file, t))
  test(`${name}: all`, () => console.log(`vectors: ${name} ${file.cases.length}`))
}

const text = piece => (typeof piece === 'string' ? piece : piece.text.repeat(piece.repeat))
const encode = text => new TextEncoder().encode(text)

/** answerOf is the answer of a step as the verifier reads it; a page too large to be read is an error. */
async function answerOf({ fails, status, headers, body, text, pad = 0 }, limit) {
  if (fails) throw new Error('no answer came')
  const bytes = encode((text ?? JSON.stringify(body) ?? '') + ' '.repeat(pad))
  return { status, headers: new Headers(headers), body: await readAll([bytes], limit) }
}

/** code is the code with which a function refuses, or an empty text. */
async function code(run) {
  try {
    await run()
    return ''
  } catch (err) {
    if (!(err instanceof VerifyError)) throw err
    return err.code
  }
}

test('every file of vectors is run', () => {
  const files = readdirSync(directory).filter(name => name.endsWith('.json'))
  assert.deepEqual(files.map(name => name.replace('.json', '')).sort(), Object.keys(runners).sort())
})

vectors('digests', ({ kind, value, id }) => {
  assert.equal(digest(kind, value).length, 4)
  assert.equal(idOf(kind, value), id)
})

vectors('keysets', async ({ body, pad = 0, keys, error = false }) => {
  const parsed = parseKeySet(encode(body + ' '.repeat(pad)))
  if (error) return assert.rejects(parsed)
  assert.deepEqual([...(await parsed).values()].map(({ id, algorithm }) => ({ kid: id, alg: algorithm })), keys ?? [])
})

vectors('tokens', async (one, file, t) => {
  const config = { ...file.config, ...one.config }
  const wall = (one.now ?? file.now) * 1000
  let keySet = one.key_set ?? file.key_set
  const clock = { wall, monotonic: 0 }
  const v = createVerifier({
    issuer: config.issuer, audience: config.audience, leeway: config.leeway ?? 0, secrets: one.secrets ?? file.secrets, withoutRevocations: true,
    clock: () => ({ ...clock }), logger: silent(),
    fetch: async () => new Response(JSON.stringify(keySet), { headers: { 'Cache-Control': 'max-age=3600' } }),
  })
  t.after(() => v.close())
  await code(() => v.verify('')) // nothing yet
  while (!v.status().keys) await new Promise(resolve => setImmediate(resolve))
  clock.monotonic += 6000
  for (const time of ['first', 'second']) {
    let token
    assert.equal(await code(async () => (token = await v.verify(one.token))), one.code, time)
    if (one.code) continue
    assert.deepEqual(token.claims, one.claims)
    if (one.issued_at !== undefined) assert.equal(token.issuedAt, one.issued_at)
  }
  if (!one.later) return
  if (one.later.now !== undefined) clock.wall = one.later.now * 1000
  if (one.later.key_set) {
    keySet = one.later.key_set
    clock.monotonic += 6000
    // A token with another kid has the set fetched.
    const other = `${btoa(JSON.stringify({ alg: 'ES256', typ: 'at+jwt', kid: 'nobody' })).replaceAll('=', '')}..`
    assert.equal(await code(() => v.verify(other)), 'token_key_unknown')
    clock.monotonic += 6000
  }
  assert.equal(await code(() => v.verify(one.token)), one.later.code, 'later')
})

vectors('bearer', async one => {
  let token = ''
  assert.equal(await code(() => (token = bearer(one.authorization))), one.code ?? '')
  assert.equal(token, one.token ?? '')
})

/** requirement makes a requirement of its JSON. */
function requirement(json) {
  const [[kind, of]] = Object.entries(json)
  switch (kind) {
    case 'any':
    case 'all':
      return requirements[kind](...of.map(requirement))
    case 'fresh_auth':
      return requirements.freshAuth(of)
    default:
      return requirements[kind](...of)
  }
}

vectors('requirements', async one => {
  const { claims } = one
  const token = new Token('kid', {
    issuedAt: claims.iat, notBefore: claims.nbf, authTime: claims.auth_time, amr: claims.amr, acr: claims.acr, scope: claims.scope?.split(' '),
  }, claims)
  const r = requirement(one.requirement)
  assert.equal(r.text, one.text)
  let error
  const got = await code(() => {
    try {
      requirements.judgeAll([r], token, { now: one.now, leeway: one.leeway ?? 0 })
    } catch (err) {
      error = err
      throw err
    }
  })
  assert.equal(got, one.code ?? '')
  assert.equal(error?.reauthentication?.maxAge ?? 0, one.max_age ?? 0)
  assert.deepEqual(error?.reauthentication?.acrValues ?? [], one.acr_values ?? [])
  assert.equal((error?.scope ?? []).join(' '), one.scope ?? '')
})

vectors('challenges', one => {
  const again = one.again && { maxAge: one.again.max_age, acrValues: one.again.acr_values }
  const error = new VerifyError(one.code, one.detail, { reauthentication: again, scope: one.scope?.split(' ') })
  const { status, headers, body } = refusal(error, { issuer: one.config.issuer, resource: one.config.resource })
  assert.equal(status, one.status)
  for (const [name, value] of Object.entries(one.headers)) assert.equal(headers[name], value)
  for (const name of one.absent_headers ?? []) assert(!(name in headers), name)
  assert.deepEqual(JSON.parse(body), one.body)
})

vectors('events', one => {
  const events = []
  const read = size => {
    const reader = new EventReader()
    events.length = 0
    for (const chunk of one.chunks) {
      const bytes = encode(text(chunk))
      for (let at = 0; at < bytes.length; at += size) for (const e of reader.push(bytes.subarray(at, at + size))) events.push(e)
    }
  }
  for (const size of [1, 3, 1000, Infinity]) { // also in other pieces
    if (one.error) assert.throws(() => read(size))
    else read(size)
    assert.deepEqual(events.map(({ name, data }) => ({ event: name, data })), (one.events ?? []).map(e => ({ event: e.event ?? '', data: text(e.data) })))
  }
})

vectors('metadata', (one, file, t) => {
  const { issuer, resource, resource_name: resourceName, scopes_supported: scopesSupported } = one.config
  const make = () => createVerifier({ issuer, resource, resourceName, scopesSupported, withoutRevocations: true, logger: silent(), fetch: () => new Promise(() => {}) })
  if (one.error) return assert.throws(make)
  const v = make()
  t.after(() => v.close())
  const { path, body } = v.metadata()
  assert.equal(path, one.path)
  assert.equal(metadataPath(resource), one.path)
  assert.deepEqual(JSON.parse(body), one.body)
  assert(v.refusal(new VerifyError('token_missing')).headers['WWW-Authenticate'].endsWith(`, resource_metadata="${one.url}"`))
})

vectors('constants', ({ name, value, unit }) => {
  const ours = constants[name.replace(/_./g, part => part[1].toUpperCase())]
  assert.equal(unit === 's' ? ours / 1000 : ours, value)
})

/** A Clock is one of steps: at is milliseconds since the start of the file. */
class Clock {
  constructor(start) {
    this.start = start * 1000
    this.set = 0
  }

  at(ms) {
    return { monotonic: ms, wall: this.start + ms + this.set }
  }
}

vectors('keys_over_time', async (one, file) => {
  const clock = new Clock(file.start)
  const secrets = one.config?.secrets ?? []
  const state = new KeyState('https://auth.example/.well-known/jwks.json', secrets.length > 0)
  state.own = await secretKeys(secretBytes(secrets))
  const usable = now => [...state.current(now).keys()]
  let waiting
  for (const [i, step] of one.steps.entries()) {
    const now = clock.at(step.at_ms)
    const where = `step ${i}: ${step.do}`
    switch (step.do) {
      case 'clock_set':
        clock.set += step.by_s * 1000
        break
      case 'look':
        assert.deepEqual(usable(now), step.keys ?? [], where)
        break
      case 'fetch': {
        if (step.request?.if_none_match !== undefined) assert.equal(state.etag ?? '', step.request.if_none_match, where)
        state.begin(now)
        let life
        let error
        try {
          life = await state.answer(await answerOf(step.answer, constants.keySetLength))
        } catch (err) {
          error = err
        }
        const { least, most } = state.end(error, life)
        assert.equal(error !== undefined, step.error ?? false, `${where}: ${error}`)
        assert.deepEqual(usable(now), step.keys ?? [], where)
        if (step.next_ms) assert.deepEqual([least, most], step.next_ms, where)
        if (waiting) {
          assert.equal((await code(() => state.fetched(waiting.kid, now))) || 'found', waiting.then, where)
          waiting = undefined
        }
        break
      }
      case 'find': {
        let asks = false
        let key
        const refused = await code(() => (key = state.find(step.kid, now, () => (asks = true))))
        assert.equal(refused || (key ? 'found' : 'fetch'), step.result, where)
        assert.equal(asks, step.asks ?? false, where)
        if (step.result === 'fetch') waiting = step
        break
      }
      default:
        assert.fail(where)
    }
  }
})

vectors('feed_over_time', async (one, file) => {
  const clock = new Clock(file.start)
  const { max_staleness: maxStaleness = 10, on_stale: onStale = 'refuse' } = one.config ?? {}
  const feed = new Feed({ maxStaleness: maxStaleness * 1000, onStale, logger: silent() })
  let stream
  let mayWait = false
  for (const [i, step] of one.steps.entries()) {
    const now = clock.at(step.at_ms)
    const where = `step ${i}: ${step.do}`
    let error
    const attempt = async run => {
      try {
        return await run()
      } catch (err) {
        error = err
      }
    }
    switch (step.do) {
      case 'clock_set':
        clock.set += step.by_s * 1000
        break
      case 'page': {
        const ask = feed.page(step.request?.wait !== undefined, 0)
        for (const name of ['after', 'wait']) assert.equal(ask.query[name], step.request?.[name], where)
        const answered = clock.at(step.answered_ms)
        const taken = await attempt(async () => {
          const { status, headers, body } = await answerOf(step.answer, constants.pageLength)
          checkAnswer('', { status, headers }, 'application/json')
          return feed.takePage(now, answered, headers, JSON.parse(new TextDecoder().decode(body)))
        })
        assert.equal(taken?.more ?? false, step.again ?? false, where)
        break
      }
      case 'stream':
        assert.equal(`${feed.log}:${feed.next}`, step.request?.last_event_id ?? step.last_event_id, where)
        assert.equal(feed.silence(), step.silence_ms, where)
        stream = new Stream(feed, now)
        break
      case 'event': {
        const data = typeof step.data === 'string' ? step.data : JSON.stringify(step.data)
        if (data) await attempt(() => stream.take({ name: step.event ?? '', data }, now))
        break
      }
      case 'end':
      case 'silence':
        stream = undefined
        break
      case 'expire':
        for (let part = 0; part < 64; part++) feed.list.sweep(feed.horizon(now))
        break
      case 'check': {
        const { jti, sid, sub, kid, epoch = 0, iat } = step.token
        const digests = [['kid', kid], ['user', sub], ['sid', sid], ['jti', jti]].map(([kind, value]) => value && digest(kind, value))
        const of = kind => digests[kind]
        const route = { ...(step.max_staleness !== undefined && { maxStaleness: step.max_staleness * 1000 }), ...(step.on_stale && { onStale: step.on_stale }) }
        assert.equal(await code(() => feed.check({ epoch, issuedAt: iat }, { of }, now, route)), step.code ?? '', where)
        break
      }
      default:
        assert.fail(where)
    }
    assert.equal(error !== undefined, step.error ?? false, `${where}: ${error}`)
    if (!step.state) continue
    const { log = '', next = 0, confirmed_ms: confirmed = null, entries = 0 } = step.state
    assert.deepEqual({ log: feed.log, next: feed.next, confirmed: feed.confirmed?.monotonic ?? null, entries: feed.list.size }, { log, next, confirmed, entries }, where)
  }
})
