// A program that follows servers which break in every way. attacks.test.js runs it in a process of
// its own, in which a rejection that nobody handles is the end.

import assert from 'node:assert/strict'
import net from 'node:net'

import { createVerifier } from '../src/index.js'
import { Issuer, silent } from './issuer.js'

process.on('warning', warning => {
  throw warning // such as that of too many listeners
})

const ends = []
const t = { after: end => ends.push(end) }
const issuer = await Issuer.start(t)
const token = await issuer.token()

/** raw is the address of a server that does the same with each connection. */
async function raw(handle) {
  const sockets = new Set()
  const server = net.createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', () => handle(socket))
  }).listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  t.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return `http://127.0.0.1:${server.address().port}`
}

/** unused is the address of a port on which nobody listens. Port 1 would not do: fetch does not even try it. */
async function unused() {
  const server = net.createServer().listen(0, '127.0.0.1')
  await new Promise(resolve => server.once('listening', resolve))
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  return `http://127.0.0.1:${port}`
}

const ok = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'
const addresses = {
  refused: await unused(),
  'a port that fetch does not try': 'http://127.0.0.1:1',
  'a name that is none': 'http://nothing.invalid',
  silent: await raw(() => {}),
  reset: await raw(socket => socket.resetAndDestroy()),
  closed: await raw(socket => socket.end()),
  'no HTTP': await raw(socket => socket.end('220 mail.example ESMTP\r\n')),
  'half a header': await raw(socket => socket.end('HTTP/1.1 200 OK\r\nContent-Ty')),
  'half a body': await raw(socket => socket.end(`${ok}Content-Length: 100\r\n\r\n{"keys":[`)),
  'a chunk that is none': await raw(socket => socket.end(`${ok}Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}`)),
  'reset in the body': await raw(socket => socket.write(`${ok}Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n`, () => socket.resetAndDestroy())),
  'a coding that is none': await raw(socket => socket.end(`${ok}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}`)),
  'no TLS': (await raw(socket => socket.end('hello'))).replace('http:', 'https:'),
}
const throwing = () => {
  throw new Error('the disk is full')
}
let fetches = 0
const fetchesOf = {
  throws: throwing,
  'rejects with nothing': () => (fetches++, Promise.reject()),
  'rejects with a text': () => Promise.reject('down'),
  'rejects with null': () => Promise.reject(null),
  'no answer': async () => undefined,
  never: () => new Promise(() => {}),
}
const cases = [
  ...Object.values(addresses).flatMap(address => [{ keySetUrl: address, revocationsUrl: address }, { revocationsUrl: address }]),
  ...Object.values(fetchesOf).map(fetch => ({ fetch })),
  { keySetUrl: addresses.refused, revocationsUrl: addresses.refused, logger: { info: throwing, warn: throwing, error: throwing } },
]
const make = options => createVerifier({ issuer: issuer.url, maxStaleness: 3, logger: silent(), ...options })

await Promise.all(cases.map(async options => {
  // Closed at once, closed twice, closed while requests wait, and after them.
  const first = make(options)
  await Promise.all([first.close(), first.close()])
  const second = make(options)
  const waiting = Array.from({ length: 10 }, () => second.verify(token).catch(error => error.code))
  await second.close()
  await Promise.all(waiting)
  await second.close()
  const third = make(options)
  setTimeout(() => third.close(), 1000)
  for (const code of await Promise.all(Array.from({ length: 10 }, () => third.verify(token).then(() => 'accepted', error => error.code)))) {
    assert(['key_set_unavailable', 'revocation_stale'].includes(code), `${JSON.stringify(options)}: ${code}`)
  }
}))
assert(fetches < 50, `${fetches} fetches in a second`)

// Ten thousand requests that wait for one fetch.
const many = make({ fetch: fetchesOf.never })
const waiting = Array.from({ length: 10_000 }, () => many.verify(token).catch(error => error.code))
await many.close()
assert.deepEqual([...new Set(await Promise.all(waiting))], ['key_set_unavailable'])

// Closed while it follows a stream, and asked afterwards.
const streaming = make({ maxStaleness: 600 })
while (!streaming.status().fresh || !issuer.streams.size) await new Promise(resolve => setTimeout(resolve, 5))
await Promise.all([streaming.close(), streaming.close()])
await streaming.verify(token)
for (const end of ends.reverse()) await end()
console.log('ended well')
