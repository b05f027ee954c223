// Measures a verifier in one process and prints JSON: `npm run bench`. Times are medians in
// microseconds, memory is in MB.

import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { monitorEventLoopDelay } from 'node:perf_hooks'

import { compactVerify, jwtVerify } from 'jose'

import { claim, createVerifier } from './src/index.js'
import { Issuer, silent } from './test/issuer.js'

const rounds = 15
const tokensPerRound = 200
const entries = 1_000_000

const algorithms = ['ES256', 'EdDSA', 'RS256']

let ends, issuer, verifier

const median = numbers => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]
const rounded = n => Math.round(n * 100) / 100

/** time returns how many microseconds a call takes on average, of n. */
async function time(n, call) {
  const begun = performance.now()
  for (let i = 0; i < n; i++) await call(i)
  return ((performance.now() - begun) * 1000) / n
}

/** speed compares the first time that a token comes, and the next, with jose alone, for one algorithm. */
async function speed(alg) {
  const { publicKey } = issuer.private.get(alg)
  const claims = () => ({ ship: 'acc', log: 'r,w', sid: crypto.randomUUID(), sub: crypto.randomUUID(), epoch: 3, scope: 'orders:read orders:write' })
  const results = { first: [], again: [], compactVerify: [], jwtVerify: [] }
  for (let round = 0; round < rounds; round++) {
    const tokens = []
    for (let i = 0; i < tokensPerRound; i++) tokens.push(await issuer.token(claims(), alg))
    const once = {
      compactVerify: token => compactVerify(token, publicKey),
      jwtVerify: token => jwtVerify(token, publicKey, { issuer: issuer.url, audience: issuer.url, typ: 'at+jwt' }),
      first: token => verifier.verify(token),
    }
    // In turns, so that what else the machine does concerns all of them; and each is the first as often,
    // because the first that reads a text does work for the others.
    const spent = { compactVerify: [], jwtVerify: [], first: [] }
    const turns = Object.entries(once)
    for (const token of tokens) {
      for (const [name, verify] of turns) spent[name].push(await time(1, () => verify(token)))
      turns.push(turns.shift())
    }
    for (const name in once) results[name].push(median(spent[name]))
    const requirement = claim('ship', 'acc')
    results.again.push(await time(20 * tokens.length, i => verifier.verify(tokens[i % tokens.length], requirement)))
  }
  const medians = Object.fromEntries(Object.entries(results).map(([name, all]) => [name, rounded(median(all))]))
  return {
    ...medians,
    'first / compactVerify': rounded(median(results.first.map((us, i) => us / results.compactVerify[i]))),
    'first / jwtVerify': rounded(median(results.first.map((us, i) => us / results.jwtVerify[i]))),
  }
}

/**
 * memory returns by how much a process grows, by whose verifier a feed of a million entries is read, how
 * long that takes, and for how long it does nothing else at most. This process is the server.
 */
async function memory(kind, more) {
  const exp = Math.floor(Date.now() / 1000) + 3600
  issuer.onFeed = (req, res, stream, url) => {
    if (stream) return res.writeHead(503).end()
    const after = Number(url.searchParams.get('after'))
    const page = { log: 'log', head: entries, as_of: new Date().toISOString(), age_ms: 0, heartbeat_ms: 1000, entries: [], more: after + 10_000 < entries }
    for (let seq = after + 1; seq <= Math.min(after + 10_000, entries); seq++) page.entries.push({ seq, kind, id: randomBytes(16).toString('base64url'), exp, ...more })
    res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(page))
  }
  const child = fork(new URL(import.meta.url), [issuer.url], { execArgv: ['--expose-gc'] })
  const [result] = await once(child, 'message')
  issuer.onFeed = undefined
  return result
}

async function reader(url) {
  const idle = createVerifier({ issuer: url, revocationsUrl: `${url}/none`, logger: silent() })
  await idle.verify('').catch(() => {}) // what any use of fetch takes is there
  await new Promise(resolve => setTimeout(resolve, 500))
  await idle.close()
  globalThis.gc()
  const before = process.memoryUsage().rss
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  const begun = performance.now()
  const verifier = createVerifier({ issuer: url, maxStaleness: 60, logger: silent() })
  let most = 0
  while (!verifier.status().fresh) {
    await new Promise(resolve => setTimeout(resolve, 10))
    most = Math.max(most, process.memoryUsage().rss - before)
  }
  const seconds = (performance.now() - begun) / 1000
  delay.disable()
  assert.equal(verifier.status().revocations, entries)
  globalThis.gc()
  const after = process.memoryUsage().rss - before
  process.send({ rss_mb: rounded(after / 1e6), most_mb: rounded(most / 1e6), seconds: rounded(seconds), longest_pause_ms: rounded(delay.max / 1e6) })
  process.disconnect()
  await verifier.close()
}

if (process.argv[2]) await reader(process.argv[2])
else await report()

async function report() {
  ends = []
  issuer = await Issuer.start({ after: end => ends.push(end) })
  for (const alg of algorithms) await issuer.addKey(alg, alg)
  const report = { node: process.version, entries, memory: {}, microseconds: {} }
  report.memory.sid = await memory('sid', {})
  report.memory.user = await memory('user', { epoch: 3, issued_before: 1_700_000_000 })
  verifier = createVerifier({ issuer: issuer.url, cacheSize: 2 ** 16, logger: silent() })
  for (const alg of algorithms) report.microseconds[alg] = await speed(alg)
  console.log(JSON.stringify(report, null, 2))
  await verifier.close()
  for (const end of ends) await end()
}
