// What attackers, faulty parts of a program and careless callers may do to a verifier.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import http from 'node:http'
import test from 'node:test'
import { inspect } from 'node:util'

import { Hono } from 'hono'

import { bearer } from '../src/answers.js'
import { after } from '../src/clock.js'
import { Feed, Stream } from '../src/feed.js'
import { requireToken } from '../src/express.js'
import { requireToken as requireTokenOfHono } from '../src/hono.js'
import { claim, createVerifier } from '../src/index.js'
import { decodeObject } from '../src/json.js'
import { get } from '../src/network.js'
import { judge } from '../src/token.js'
import { Issuer, serve, silent } from './issuer.js'

const refused = (promise, code) => assert.rejects(promise, { name: 'VerifyError', code })

async function start(t, options = {}) {
  const issuer = await Issuer.start(t)
  const verifier = createVerifier({ issuer: issuer.url, maxStaleness: 60, logger: silent(), ...options })
  t.after(() => verifier.close())
  return { issuer, verifier }
}

test('a long header is read in one pass', () => {
  // Node takes headers of 16 KiB, and more where it is told to.
  const header = ` \tBearer a${' '.repeat(1 << 16)}b \t`
  const begun = performance.now()
  assert.equal(bearer([header]).length, (1 << 16) + 2)
  assert.throws(() => bearer([`${' '.repeat(1 << 16)}x`]), { code: 'token_missing' })
  assert(performance.now() - begun < 1000) // with a pass for each space it takes more than five
})

test('an answer that was given meanwhile is no fault', { timeout: 60_000 }, async t => {
  const { issuer, verifier } = await start(t)
  const token = await issuer.token()
  let fail
  const failed = new Promise((_, reject) => (fail = reject))
  const broken = error => fail(error)
  process.on('unhandledRejection', broken)
  t.after(() => process.off('unhandledRejection', broken))
  const middleware = requireToken(verifier, claim('ship', 'acc'))
  const ended = new Promise(resolve => {
    const server = http.createServer((req, res) => {
      middleware(req, res, fail)
      res.writeHead(504).end() // as a time-out does
      verifier.authorize(req, claim('ship', 'acc')).catch(() => setTimeout(resolve, 20))
    }).listen(0, '127.0.0.1', () => http.get({ port: server.address().port, headers: { Authorization: `Bearer ${token}` }, agent: false }, res => res.resume()))
    t.after(() => server.close())
  })
  await Promise.race([ended, failed])
})

test('what only looks like a condition, or like an option, is refused', async t => {
  const { issuer, verifier } = await start(t, { withoutRevocations: true })
  const token = await issuer.token()
  class Options { onStale = 'accept' }
  for (const wrong of [Promise.resolve(claim('ship', 'acc')), new Map([['onStale', 'accept']]), new Set([claim('ship', 'acc')]), [], [claim('ship', 'acc')], new Options(), new Date()]) {
    await assert.rejects(verifier.verify(token, wrong), TypeError, inspect(wrong))
    await assert.rejects(verifier.authorize({ rawHeaders: ['authorization', `Bearer ${token}`] }, wrong), TypeError, inspect(wrong))
    assert.throws(() => requireToken(verifier, wrong), TypeError, inspect(wrong))
  }
  await verifier.verify(token, {}, Object.create(null))
  for (const options of [
    { withoutRevocations: 'false' }, { withoutRevocations: 0 }, { logger: {} }, { logger: { warn() {}, info() {} } }, { fetch: 'fetch' }, { clock: 5 }, { resource: 'https://api.example', resourceName: {} },
    { issuer: 'https://a\r\nb.example' }, { issuer: 'https://日.example' }, { issuer: ' https://a.example' },
  ]) {
    assert.throws(() => createVerifier({ issuer: issuer.url, ...options }).close(), TypeError, inspect(options))
  }
})

test('passwords in addresses are refused, and shown to nobody', () => {
  for (const name of ['issuer', 'keySetUrl', 'revocationsUrl']) {
    for (const address of ['https://user:hunter2@auth.example', 'https://hunter2@auth.example']) {
      const logger = silent()
      assert.throws(() => createVerifier({ issuer: 'https://auth.example', logger, [name]: address }), error => error instanceof TypeError && !inspect(error).includes('hunter2'), name)
      assert.deepEqual(logger.lines, [])
    }
  }
})

test('names of the language are names like any other', async t => {
  const { issuer, verifier } = await start(t)
  for (const name of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    await issuer.addKey(name)
    await refused(verifier.verify(await issuer.token(), claim(name, 'acc')), 'forbidden')
    const { private: keys } = issuer
    const claims = JSON.parse(`{"${name}":"r,acc"}`)
    const token = await verifier.verify(await issuer.token(claims), claim(name, 'acc'))
    assert.deepEqual([token.has(name, 'acc'), token.has(name, 'w'), Object.getPrototypeOf(token.claims)], [true, false, Object.prototype])
    assert(keys.has(name))
  }
  const fresh = createVerifier({ issuer: issuer.url, maxStaleness: 60, logger: silent() })
  t.after(() => fresh.close())
  for (const name of ['__proto__', 'constructor', 'toString']) {
    assert.equal((await fresh.verify(await issuer.token({}, name))).keyId, name)
    issuer.revoke('kid', name)
  }
  while (fresh.status().revocations < 3) await new Promise(resolve => setTimeout(resolve, 5))
  await refused(fresh.verify(await issuer.token({}, '__proto__')), 'token_revoked')
  await fresh.verify(await issuer.token())
})

test('hono takes a binding with the name incoming for what it is', async t => {
  const { issuer, verifier } = await start(t)
  const app = new Hono()
  app.get('/', requireTokenOfHono(verifier), c => c.text(c.get('token').subject))
  const headers = { Authorization: `Bearer ${await issuer.token()}` }
  for (const incoming of [{}, 'text', { headers: {} }, { rawHeaders: 'text' }]) assert.equal((await app.request('/', { headers }, { incoming })).status, 200)
})

test('hono answers with the headers of a refusal, whatever was set before', async t => {
  const { verifier } = await start(t)
  const app = new Hono()
  app.use((c, next) => {
    c.res.headers.set('Cache-Control', 'public, max-age=3600')
    c.header('WWW-Authenticate', 'Basic')
    c.header('Access-Control-Allow-Origin', 'https://app.example')
    return next()
  })
  app.get('/', requireTokenOfHono(verifier), c => c.text(c.get('token').subject))
  const { status, headers } = await app.request('/')
  assert.deepEqual([status, headers.get('Cache-Control'), headers.get('Access-Control-Allow-Origin')], [401, 'no-store', 'https://app.example'])
  assert.match(headers.get('WWW-Authenticate'), /^Bearer realm="[^"]*"$/)
})

test('an error shows nothing of what it is about', async t => {
  const { issuer, verifier } = await start(t)
  await issuer.addKey('key-2')
  const [header, payload, signature] = (await issuer.token({ jti: 'key-1-token' })).split('.')
  const encode = text => Buffer.from(text).toString('base64url')
  for (const token of [
    `${header}.${payload}.${signature.slice(4)}`, `${header}.${payload}`, `${header}.${payload}.${signature}=`, `${header}.${payload}.${signature}.x`, `${encode('{"hunter2\\q":1}')}.${payload}.${signature}`,
    `${encode('{"alg":"ES256","typ":"at+jwt","kid":"key-2"}')}.${payload}.${signature}`, `${header}.${encode('{"hunter2":1}')}.${signature}`,
  ]) {
    const error = await verifier.verify(token).then(assert.fail, error => error)
    assert.equal(error.name, 'VerifyError')
    const shown = inspect(error, { depth: 20, showHidden: true }) + JSON.stringify(error) + JSON.stringify(verifier.refusal(error))
    for (const secret of [payload, signature.slice(4, 30), encode('{"hunter2'), 'hunter2']) assert(!shown.includes(secret), `${token}: ${shown}`)
  }
  assert.throws(() => decodeObject(new TextEncoder().encode('{"a":"hunter2\\q"}')), error => !error.message.includes('hunter2'))
})

test('a clock that says nothing makes no token good', () => {
  const token = { issuer: 'i', audience: ['a'], expiresAt: 1, notBefore: 1 }
  assert.throws(() => judge(token, { issuer: 'i', audience: ['a'], leeway: 0 }, NaN), { code: 'token_expired' })
})

test('a page that a cache gives again confirms what it did', () => {
  const feed = new Feed({ maxStaleness: 10_000, onStale: 'refuse', logger: silent() })
  const moment = ms => ({ monotonic: ms, wall: 1e12 + ms })
  const page = second => ({ log: 'log-1', head: 0, as_of: `2026-01-15T08:00:0${second}.123456Z`, age_ms: 0, entries: [], more: false })
  const take = (ms, second) => feed.takePage(moment(ms), moment(ms + 10), new Headers(), page(second))
  take(0, 0)
  for (const [ms, second, confirmed] of [[1000, 1, 1000], [2000, 1, 1000], [3000, 0, 1000], [9000, 1, 1000], [9500, 2, 9500]]) {
    take(ms, second)
    assert.equal(feed.confirmed.monotonic, confirmed, `${ms}`)
  }
  take(9600, 2)
  assert(!feed.within(10_000, moment(19_501)))
})

test('a wall clock that is set on while a stream is open ends it', () => {
  const feed = new Feed({ maxStaleness: 10_000, onStale: 'refuse', logger: silent() })
  feed.log = 'log-1'
  const begun = { monotonic: 0, wall: 1e12 }
  const head = ms => ({ name: 'head', data: JSON.stringify({ log: 'log-1', head: 0, as_of: new Date(2e12 + ms).toISOString(), age_ms: 0 }) })
  let stream = new Stream(feed, begun)
  stream.take(head(0), after(begun, 5))
  stream.take(head(1000), after(begun, 1005))
  assert(feed.within(10_000, after(begun, 1010)) && stream.useful)
  // Pages, or the next stream, say what is known by the clock that now is.
  const set = ms => ({ monotonic: ms, wall: begun.wall + ms + 3_600_000 })
  assert.throws(() => stream.take(head(2000), set(2005)), /a clock was set/)
  stream = new Stream(feed, set(2100))
  stream.take(head(2100), set(2105))
  assert(feed.within(10_000, set(2110)) && stream.useful)
  // Set back, it is the monotonic clock that counts.
  const back = ms => ({ monotonic: ms, wall: begun.wall + ms - 3_600_000 })
  stream.take(head(3100), back(3105))
  assert(feed.within(10_000, back(3110)) && stream.useful)
  assert(!feed.within(10_000, back(14_000)))
})

test('an answer that nobody reads is not kept open, also by a fetch that is deaf to its signal', { timeout: 60_000 }, async t => {
  let open = 0
  const url = await serve(t, (req, res) => {
    open++
    res.on('close', () => open--)
    res.writeHead(500).write('x')
  })
  const stop = new AbortController()
  const kept = [] // what is collected as garbage would be cancelled by Node.js
  const deaf = async (url, init) => {
    const res = await fetch(url, { ...init, signal: null })
    kept.push(res)
    return res
  }
  const uses = {
    thrown: () => { throw new Error('another type') }, unread: () => 'enough',
    begun: async ({ body }) => { for await (const part of body) return part.length },
  }
  for (const [name, use] of Object.entries(uses)) {
    await get(deaf, url, { headers: {}, signal: stop.signal, timeout: 5000 }, use).catch(() => {})
    while (open) await new Promise(resolve => setTimeout(resolve, 5))
    assert.equal(kept.length, Object.keys(uses).indexOf(name) + 1)
  }
})

test('no fault of the network, of a fetch or of a logger ends a process, and close returns in every state', { timeout: 60_000 }, async t => {
  const child = spawn(process.execPath, ['--unhandled-rejections=strict', new URL('faults.js', import.meta.url).pathname], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  let printed = ''
  child.stdout.on('data', data => (printed += data))
  assert.deepEqual(await once(child, 'exit'), [0, null], printed)
  assert.equal(printed, 'ended well\n')
})
