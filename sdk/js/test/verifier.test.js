// A verifier against an issuer over the network, and against servers that mean no good.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import test from 'node:test'

import { claim, createVerifier, freshAuth, that } from '../src/index.js'
import { idOf, Issuer, serve, silent } from './issuer.js'

/** until waits for a condition; a test that waits in vain fails by its timeout. */
async function until(condition) {
  while (!condition()) await new Promise(resolve => setTimeout(resolve, 5))
}

/** A Clock is this machine's, and can be set on. */
class Clock {
  ahead = 0
  now = () => ({ monotonic: performance.now() + this.ahead, wall: Date.now() + this.ahead })
}

async function start(t, options = {}) {
  const issuer = await Issuer.start(t)
  const clock = new Clock()
  const logger = silent()
  const verifier = createVerifier({ issuer: issuer.url, clock: clock.now, logger, ...options })
  t.after(() => verifier.close())
  return { issuer, clock, logger, verifier }
}

const refused = (promise, code) => assert.rejects(promise, error => {
  assert.equal(error.code, code, error.stack)
  assert.equal(error.name, 'VerifyError')
  return true
})

test('a revocation comes over the stream, also to tokens that are remembered', { timeout: 60_000 }, async t => {
  const { issuer, verifier } = await start(t)
  const now = Math.floor(Date.now() / 1000)
  const of = {
    jti: await issuer.token({ jti: 'token-1' }), sid: await issuer.token({ sid: 'session-1' }), user: await issuer.token({ sub: 'user-2', epoch: 1, iat: now - 5 }),
    later: await issuer.token({ sub: 'user-2', epoch: 2 }),
  }
  for (const token of Object.values(of)) await verifier.verify(token)
  await until(() => issuer.streams.size)
  issuer.revoke('jti', 'token-1')
  issuer.revoke('sid', 'session-1')
  issuer.revoke('user', 'user-2', { epoch: 2 })
  await until(() => verifier.status().revocations === 3)
  for (const kind of ['jti', 'sid', 'user']) await refused(verifier.verify(of[kind]), 'token_revoked')
  await verifier.verify(of.later)
  issuer.revoke('user', 'user-2', { issued_before: now + 100 })
  issuer.revoke('kid', 'key-1')
  await until(() => verifier.status().revocations === 4)
  await refused(verifier.verify(of.later), 'token_revoked')
  assert.equal(issuer.requests.pages, 1)
  assert.deepEqual([...issuer.connections], ['close'], 'the next request reaches another replica')
  const { keys, confirmed, confirmedAge, fresh } = verifier.status()
  assert.equal(keys, 1)
  assert(confirmed instanceof Date && confirmedAge >= 0 && confirmedAge < 10 && fresh)
})

test('a stream that is cut is resumed where it ended, and long polls take the place of streams that are refused', { timeout: 60_000 }, async t => {
  const { issuer, verifier } = await start(t)
  const token = await issuer.token({ sid: 'session-1' })
  const other = await issuer.token({ sid: 'session-2' })
  await verifier.verify(token)
  await until(() => issuer.streams.size)
  for (const { res } of issuer.streams) res.destroy()
  issuer.streams.clear()
  issuer.revoke('sid', 'session-1') // while there is no stream
  await until(() => issuer.streams.size)
  await until(() => verifier.status().revocations === 1)
  await refused(verifier.verify(token), 'token_revoked')

  // From now on there are no streams, and pages are held back.
  issuer.streaming = false
  let held = 0
  const waiting = new Set()
  issuer.onFeed = (req, res, stream, url) => {
    if (stream || !url.searchParams.get('wait') || issuer.entries.length > Number(url.searchParams.get('after'))) return issuer.feed(req, res, stream, url)
    held++
    const begun = performance.now()
    waiting.add(() => res.writeHead(200, { 'Content-Type': 'application/json' })
      .end(JSON.stringify({ ...issuer.page(Number(url.searchParams.get('after'))), waited_ms: Math.floor(performance.now() - begun) })))
  }
  for (const { res } of issuer.streams) res.destroy()
  issuer.streams.clear()
  await until(() => held)
  issuer.revoke('sid', 'session-2')
  for (const answer of waiting) answer()
  await until(() => verifier.status().revocations === 2)
  await refused(verifier.verify(other), 'token_revoked')
})

test('it is closed when it is not known what was revoked', { timeout: 60_000 }, async t => {
  const { issuer, clock, logger, verifier } = await start(t)
  const token = await issuer.token({ ship: 'acc' })
  await verifier.verify(token)
  await until(() => issuer.streams.size)
  issuer.onFeed = (req, res) => res.destroy()
  for (const { res } of issuer.streams) res.destroy()
  await until(() => logger.lines.some(({ message }) => message.startsWith('the feed of revocations is out of reach')))
  await verifier.verify(token)
  clock.ahead += 10_100
  await refused(verifier.verify(token), 'revocation_stale')
  await refused(verifier.verify(token, { maxStaleness: 1 }), 'revocation_stale')
  await verifier.verify(token, { maxStaleness: 60 })
  await verifier.verify(token, claim('ship', 'acc'), { onStale: 'accept' })
  await refused(verifier.verify(token, claim('ship', 'x'), { onStale: 'accept' }), 'forbidden')
  assert.equal(verifier.status().fresh, false)
  assert.equal(logger.lines.filter(({ level }) => level === 'error').length, 1, 'an outage is logged once')
  issuer.onFeed = undefined
  await until(() => verifier.status().fresh)
  await verifier.verify(token)
})

test('a feed that was never read lets nothing through, whatever onStale says', { timeout: 60_000 }, async t => {
  const issuer = await Issuer.start(t)
  issuer.onFeed = (req, res) => res.writeHead(500).end()
  const verifier = createVerifier({ issuer: issuer.url, onStale: 'accept', logger: silent() })
  t.after(() => verifier.close())
  await refused(verifier.verify(await issuer.token()), 'revocation_stale')
  assert.equal(verifier.status().confirmed, null)
})

test('a remembered token is still asked against time, key and claims', async t => {
  const { issuer, clock, verifier } = await start(t, { withoutRevocations: true })
  const token = await issuer.token()
  assert.equal(await verifier.verify(token), await verifier.verify(token), 'it is remembered')
  assert(Object.isFrozen(await verifier.verify(token)))
  clock.ahead += 601_000
  await refused(verifier.verify(token), 'token_expired')
  clock.ahead = 0
  await verifier.verify(token)
  // Another key takes the kid.
  issuer.keys.length = 0
  await issuer.addKey('key-1')
  await issuer.addKey('key-2')
  clock.ahead += 6000
  await verifier.verify(await issuer.token({}, 'key-2'))
  await refused(verifier.verify(token), 'token_signature')
})

test('a hundred cold requests, and ten thousand random kids, cause one fetch each time', async t => {
  const { issuer, clock, verifier } = await start(t, { withoutRevocations: true })
  const token = await issuer.token()
  await Promise.all(Array.from({ length: 100 }, () => verifier.verify(token)))
  assert.equal(issuer.requests.keys, 1)
  clock.ahead += 5001
  const [, payload, signature] = token.split('.')
  const random = () => `${btoa(JSON.stringify({ alg: 'ES256', typ: 'at+jwt', kid: crypto.randomUUID() })).replaceAll('=', '')}.${payload}.${signature}`
  const codes = new Set(await Promise.all(Array.from({ length: 10_000 }, () => verifier.verify(random()).catch(({ code }) => code))))
  assert.deepEqual([...codes], ['token_key_unknown'])
  assert.equal(issuer.requests.keys, 2)
  await refused(verifier.verify(random()), 'key_set_unavailable')
  await verifier.verify(token)
  await verifier.verify(await issuer.token({ jti: 'another' }))
})

test('a key set that is an error, garbage, a redirect or endless changes nothing', { timeout: 60_000 }, async t => {
  const issuer = await Issuer.start(t)
  const elsewhere = await serve(t, (req, res) => res.end(JSON.stringify({ keys: issuer.keys })))
  const answers = {
    'an error': (req, res) => res.writeHead(500).end(),
    garbage: (req, res) => res.end('{"keys":[{"kty":"EC"'),
    'a redirect': (req, res) => res.writeHead(302, { Location: elsewhere }).end(),
    'an endless one': endless('{"keys":[', ' '),
  }
  for (const [name, answer] of Object.entries(answers)) {
    await t.test(name, async t => {
      const clock = new Clock()
      const verifier = createVerifier({ issuer: issuer.url, withoutRevocations: true, clock: clock.now, logger: silent() })
      t.after(() => verifier.close())
      issuer.onKeys = undefined
      const token = await issuer.token()
      await verifier.verify(token)
      issuer.onKeys = answer
      clock.ahead += 6000
      const kid = name.replaceAll(' ', '-')
      await issuer.addKey(kid)
      await refused(verifier.verify(await issuer.token({}, kid)), 'key_set_unavailable')
      await verifier.verify(token)
      await verifier.verify(await issuer.token())
      issuer.onKeys = undefined
      const first = createVerifier({ issuer: issuer.url, keySetUrl: `${issuer.url}/nothing`, withoutRevocations: true, logger: silent() })
      t.after(() => first.close())
      await refused(first.verify(token), 'key_set_unavailable')
    })
  }
  assert(answers['an endless one'].sent < 50 << 20)
})

/** endless makes a handler that sends 100 MB, unless its client goes. */
function endless(beginning, more, type = 'application/json') {
  const part = more.repeat(1 << 20)
  const handler = async (req, res) => {
    res.writeHead(200, { 'Content-Type': type })
    res.write(beginning)
    for (let i = 0; i < 100 && !res.destroyed; i++) {
      if (res.write(part)) await new Promise(setImmediate)
      else await Promise.race([once(res, 'drain'), once(res, 'close')])
      handler.sent += part.length
    }
    handler.gone = true
    res.end()
  }
  handler.sent = 0
  return handler
}

test('a feed that lies or does not end is no confirmation, and takes no memory', { timeout: 60_000 }, async t => {
  const issuer = await Issuer.start(t)
  const token = await issuer.token()
  const page = change => (req, res) => res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ ...issuer.page(0), ...change }))
  const entry = { seq: 1, kind: 'sid', id: idOf('sid', 'x'), exp: 4e9 }
  const cases = {
    'an age below zero': page({ age_ms: -1000 }),
    'an age of an hour': page({ age_ms: 3_600_000 }),
    'no as_of': page({ as_of: undefined }),
    'no log': page({ log: '' }),
    'a later version': page({ version: 2 }),
    'an unknown kind': page({ entries: [entry, { ...entry, seq: 2, kind: 'client' }], head: 2 }),
    'more without progress': page({ more: true, head: 9 }),
    'another type': (req, res) => res.writeHead(200, { 'Content-Type': 'text/html' }).end(JSON.stringify(issuer.page(0))),
    garbage: (req, res) => res.writeHead(200, { 'Content-Type': 'application/json' }).end('{'),
    'a redirect': (req, res) => res.writeHead(302, { Location: `${issuer.url}/api/revocations?after=0&version=1` }).end(),
    'a page of 100 MB': endless('{"log":"', 'x'),
  }
  const before = process.memoryUsage().rss
  for (const [name, answer] of Object.entries(cases)) {
    await t.test(name, async t => {
      issuer.onFeed = (...request) => (request[3].searchParams.has('limit') && request[0].url.includes('limit') ? answer(...request) : request[1].writeHead(404).end())
      const verifier = createVerifier({ issuer: issuer.url, onStale: 'refuse', logger: silent() })
      t.after(() => verifier.close())
      await refused(verifier.verify(token), 'revocation_stale')
      assert.equal(verifier.status().revocations, 0)
    })
  }
  assert(cases['a page of 100 MB'].sent < 60 << 20)

  await t.test('a stream whose line does not end', async t => {
    const line = endless('event: resume\ndata: ', 'x', 'text/event-stream')
    issuer.onFeed = (req, res, stream, url) => (stream ? line(req, res) : issuer.feed(req, res, stream, url))
    const verifier = createVerifier({ issuer: issuer.url, logger: silent() })
    t.after(() => verifier.close())
    await verifier.verify(token)
    await until(() => line.gone)
    assert(line.sent < 50 << 20, `${line.sent}`)
  })

  await t.test('a stream that says it knows what is to come', async t => {
    issuer.onFeed = (req, res, stream, url) => {
      if (!stream) return issuer.feed(req, res, stream, url)
      res.writeHead(200, { 'Content-Type': 'text/event-stream' })
      const head = (name, ahead) => res.write(`event: ${name}\ndata: ${JSON.stringify({ log: issuer.log, head: 0, as_of: new Date(Date.now() + ahead).toISOString(), age_ms: 0 })}\n\n`)
      head('resume', 0)
      head('head', 3_600_000)
    }
    const verifier = createVerifier({ issuer: issuer.url, logger: silent() })
    t.after(() => verifier.close())
    await verifier.verify(token)
    const { requests } = issuer
    requests.streams = 0
    await until(() => requests.streams || verifier.status().confirmedAge > 0.2)
    assert(verifier.status().confirmedAge >= 0, 'nothing is confirmed that is in the future')
  })
  const grown = process.memoryUsage().rss - before
  assert(grown < 200 << 20, `${grown >> 20} MiB more`)
})

test('shared secrets', async t => {
  const issuer = await Issuer.start(t)
  const secret = 'a secret that is long enough for HS256, HS384 and for HS512 as well, as it should be'
  for (const alg of ['HS256', 'HS384', 'HS512']) {
    const bytes = new TextEncoder().encode(secret)
    const hmac = await crypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign'])
    const mac = await crypto.subtle.sign('HMAC', hmac, new TextEncoder().encode(`watchword signing secret 1: ${alg}`))
    issuer.private.set(alg, { alg, privateKey: bytes, kid: Buffer.from(mac).subarray(0, 16).toString('base64url') })
  }
  const verifier = createVerifier({ issuer: issuer.url, secrets: [secret], withoutRevocations: true, logger: silent() })
  t.after(() => verifier.close())
  for (const alg of ['HS256', 'HS384', 'HS512']) {
    const token = await verifier.verify(await issuer.token({}, alg, { kid: issuer.private.get(alg).kid }))
    assert.equal(token.keyId, issuer.private.get(alg).kid)
  }
  assert(!JSON.stringify([verifier, verifier.status()]).includes(secret))
  const { inspect } = await import('node:util')
  assert(!inspect(verifier, { depth: 20, showHidden: true }).includes(secret))
})

test('options and conditions that are wrong are refused at once', () => {
  const issuer = 'http://127.0.0.1:1'
  for (const options of [
    undefined, {}, { issuer: '' }, { issuer: 'auth.example' }, { issuer: 'ftp://auth.example' }, { issuer: 'http://a"b' }, { issuer, maxStaleness: 2.9 }, { issuer, maxStaleness: '10' },
    { issuer, maxStaleness: NaN }, { issuer, leeway: 301 }, { issuer, leeway: -1 }, { issuer, onStale: 'open' }, { issuer, cacheSize: -1 }, { issuer, audience: [''] },
    { issuer, secrets: ['short'] }, { issuer, secrets: ['x'.repeat(32), 'x'.repeat(32)] }, { issuer, keySetUrl: 'x' }, { issuer, revocationsUrl: 'x' }, { issuer, max_staleness: 5 },
    { issuer, resource: 'http://api.example' }, { issuer, resource: 'https://api.example/#a' }, { issuer, resource: 'https://api.example/a/../b' }, { issuer, resource: 'https://u:p@api.example' },
    { issuer, resourceName: 'Ships' }, { issuer, resource: 'https://api.example', scopesSupported: ['a b'] },
  ]) {
    assert.throws(() => createVerifier(options), TypeError, JSON.stringify(options))
  }
  for (const wrong of [() => claim('ship'), () => freshAuth('5m'), () => that('x'), () => that('x', true)]) assert.throws(wrong, TypeError)
})

test('conditions that are wrong never let a request through', async t => {
  const { issuer, verifier } = await start(t, { withoutRevocations: true })
  const token = await issuer.token()
  for (const wrong of [null, 'ship=acc', () => true, { onstale: 'accept' }, { onStale: 'open' }, { maxStaleness: -1 }, { judge: () => ({ outcome: 0 }) }]) {
    await assert.rejects(async () => verifier.verify(token, wrong), TypeError)
  }
  await refused(verifier.verify(token, that('truthy is not true', () => 1)), 'forbidden')
  for (const wrong of [undefined, null, 7, {}, [token]]) await refused(verifier.verify(wrong), 'token_malformed')
})

test('after close nothing is accepted that would need the network, and nobody waits', async t => {
  const issuer = await Issuer.start(t)
  const hangs = new Set()
  issuer.onKeys = issuer.onFeed = (req, res) => hangs.add(res)
  const verifier = createVerifier({ issuer: issuer.url, logger: silent() })
  const waiting = refused(verifier.verify(await issuer.token()), 'key_set_unavailable')
  await until(() => hangs.size === 2)
  await verifier.close()
  await waiting
  await verifier.close()
})

test('a fetch that is deaf to its signal holds nothing up', { timeout: 60_000 }, async t => {
  const issuer = await Issuer.start(t)
  const deaf = (url, init) => fetch(url, { ...init, signal: null })
  const silentStream = (req, res, stream, url) => (stream ? res.writeHead(200, { 'Content-Type': 'text/event-stream' }).write(':\n') : issuer.feed(req, res, stream, url))
  const never = () => {}
  for (const [name, feed] of Object.entries({ silentStream, never })) {
    await t.test(name, async t => {
      issuer.onFeed = feed
      issuer.requests.pages = 0
      const verifier = createVerifier({ issuer: issuer.url, maxStaleness: 3, fetch: deaf, logger: silent() })
      t.after(() => verifier.close())
      await until(() => issuer.requests.pages === 2)
    })
  }
})

/** ends runs a program and returns its exit code. */
async function ends(program) {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { cwd: import.meta.dirname ?? new URL('.', import.meta.url).pathname, stdio: ['ignore', 'ignore', 'inherit'] })
  const [code] = await once(child, 'exit')
  return code
}

test('timers keep no process alive, and after close nothing does', { timeout: 60_000 }, async t => {
  const issuer = await Issuer.start(t)
  const token = await issuer.token()
  const program = (options, then) => `
    import { createVerifier } from '../src/index.js'
    const verifier = createVerifier({ issuer: '${issuer.url}', ...${JSON.stringify(options)} })
    await verifier.verify('${token}')
    ${then}`
  assert.deepEqual(await Promise.all([
    ends(program({ withoutRevocations: true }, '')), // the next fetch is due in a minute
    ends(program({}, 'await verifier.close()')),
  ]), [0, 0])
})

test('the package uses web APIs alone', () => {
  const source = new URL('../src/', import.meta.url)
  for (const name of readdirSync(source).filter(name => name.endsWith('.js'))) {
    const text = readFileSync(new URL(name, source), 'utf8')
    for (const [, from] of text.matchAll(/(?:from|import) ?\(?'([^']+)'/g)) assert(from.startsWith('./') || from === 'jose', `${name} imports ${from}`)
    const code = text.replace(/\/\*[^]*?\*\/|\/\/.*$/gm, '')
    assert.doesNotMatch(code, /\b(process|Buffer|require|setImmediate|global|__dirname)\b/, name)
  }
})
