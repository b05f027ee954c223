// An issuer of tokens for tests, with a key set and a feed on 127.0.0.1.

import { once } from 'node:events'
import http from 'node:http'

import { base64url, exportJWK, generateKeyPair, SignJWT } from 'jose'

import { digest } from '../src/revoked.js'

/** silent is a logger for outages that a test expects; it keeps what it is told. */
export const silent = () => {
  const lines = []
  const log = level => (message, fields) => lines.push({ level, message, fields })
  return { lines, warn: log('warn'), info: log('info'), error: log('error') }
}

/** idOf is the id of an entry. */
export function idOf(kind, value) {
  const view = new DataView(new ArrayBuffer(16))
  digest(kind, value).forEach((word, i) => view.setInt32(4 * i, word))
  return base64url.encode(new Uint8Array(view.buffer))
}

/** serve starts a server with a handler; it ends with the test. */
export async function serve(t, handler) {
  const server = http.createServer(handler).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => {
    server.closeAllConnections()
    return new Promise(resolve => server.close(resolve))
  })
  return `http://127.0.0.1:${server.address().port}`
}

export class Issuer {
  static async start(t) {
    const issuer = new Issuer()
    issuer.url = await serve(t, (req, res) => issuer.handle(req, res))
    await issuer.addKey('key-1')
    return issuer
  }

  constructor() {
    this.keys = []
    this.private = new Map()
    this.log = 'log-1'
    this.entries = []
    this.heartbeat = 100
    this.requests = { keys: 0, pages: 0, streams: 0 }
    this.streams = new Set()
    this.connections = new Set() // what requests say of theirs
    this.streaming = true
    // What a test may put in place of an answer: functions of (req, res).
    this.onKeys = this.onFeed = undefined
  }

  async addKey(kid, alg = 'ES256') {
    const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
    this.keys.push({ ...(await exportJWK(publicKey)), kid, alg, use: 'sig' })
    this.private.set(kid, { alg, privateKey, publicKey })
  }

  /** token signs a token; undefined removes a claim. */
  async token(claims = {}, kid = 'key-1', header = {}) {
    const { alg, privateKey } = this.private.get(kid)
    const now = Math.floor(Date.now() / 1000)
    const all = { iss: this.url, aud: this.url, sub: 'user-1', jti: crypto.randomUUID(), iat: now, exp: now + 600, ...claims }
    for (;;) {
      const token = await new SignJWT(all).setProtectedHeader({ alg, typ: 'at+jwt', kid, ...header }).sign(privateKey)
      // Of two forms of an ECDSA signature Watchword issues one; its s begins with a low byte.
      if (alg !== 'ES256' || base64url.decode(token.split('.')[2])[32] < 0x7f) return token
    }
  }

  handle(req, res) {
    const url = new URL(req.url, this.url)
    this.connections.add(req.headers.connection)
    if (url.pathname === '/.well-known/jwks.json') {
      this.requests.keys++
      if (this.onKeys) return this.onKeys(req, res)
      return res.writeHead(200, { 'Content-Type': 'application/jwk-set+json', 'Cache-Control': 'max-age=60' }).end(JSON.stringify({ keys: this.keys }))
    }
    if (url.pathname !== '/api/revocations') return res.writeHead(404).end()
    const stream = req.headers.accept === 'text/event-stream'
    this.requests[stream ? 'streams' : 'pages']++
    if (this.onFeed) return this.onFeed(req, res, stream, url)
    this.feed(req, res, stream, url)
  }

  feed(req, res, stream, url) {
    if (stream) return this.stream(req, res)
    const after = Number(url.searchParams.get('after'))
    res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(this.page(after)))
  }

  page(after) {
    const entries = this.entries.filter(e => e.seq > after)
    return { version: 1, log: this.log, head: this.entries.length, as_of: new Date().toISOString(), age_ms: 0, heartbeat_ms: this.heartbeat, snapshot: false, entries, more: false }
  }

  stream(req, res) {
    if (!this.streaming) return res.writeHead(503).end()
    let at = Number(req.headers['last-event-id'].split(':').pop())
    res.writeHead(200, { 'Content-Type': 'text/event-stream' })
    const event = (name, data) => res.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`)
    const head = () => ({ version: 1, log: this.log, head: this.entries.length, as_of: new Date().toISOString(), age_ms: 0 })
    event('resume', head())
    const send = () => {
      for (const e of this.entries.filter(e => e.seq > at)) event('revocation', e)
      at = this.entries.length
      event('head', head())
    }
    send()
    const beat = setInterval(send, this.heartbeat)
    this.streams.add({ send, res })
    res.on('close', () => clearInterval(beat))
  }

  /** revoke adds an entry, and tells the streams at once. */
  revoke(kind, value, more = {}) {
    this.entries.push({ seq: this.entries.length + 1, kind, id: idOf(kind, value), exp: Math.floor(Date.now() / 1000) + 600, ...more })
    for (const { send } of this.streams) send()
  }
}
