// Requests, with bounds in time and size. Only web APIs are used, so that it runs in browsers, too.

import { timer } from './clock.js'

/**
 * get sends a request and returns what use makes of its answer {status, headers, body, watchdog}; body
 * gives the parts as they come.
 * timeout bounds the whole, patience the silence until the watchdog is told of something, both in
 * milliseconds. No redirect is followed: keys and revocations come from the configured URL and
 * nowhere else.
 */
export async function get(fetch, url, { headers, signal, timeout, patience }, use) {
  const controller = new AbortController()
  const stop = () => controller.abort(new Error('the verifier is closed'))
  signal.addEventListener('abort', stop)
  const deadline = timer(() => controller.abort(new Error(`${url} takes longer than ${timeout} ms`)), timeout)
  const watchdog = new Watchdog(ms => controller.abort(new Error(`${url} does not answer within ${ms} ms`)))
  if (patience) watchdog.reset(patience)
  const aborted = new Promise((_, reject) => {
    controller.signal.addEventListener('abort', () => reject(controller.signal.reason))
  })
  aborted.catch(() => {})
  let reader
  // The fetch of Node.js may forget its signal: https://github.com/nodejs/undici/pull/4984. So an answer
  // that does not come is not waited for, and one that is there is cancelled, whatever became of the signal.
  const cancel = () => reader?.cancel(controller.signal.reason).catch(() => {})
  controller.signal.addEventListener('abort', cancel)
  try {
    if (signal.aborted) stop()
    controller.signal.throwIfAborted()
    const answer = fetch(url, {
      // The connection is not kept for the next request: the replica at its other end may be the one
      // whose answer was just useless. Browsers ignore the header.
      headers: { ...headers, Connection: 'close' },
      signal: controller.signal,
      redirect: 'error',
      credentials: 'omit',
      cache: 'no-store',
    })
    answer.then(res => controller.signal.aborted && res.body?.cancel()).catch(() => {})
    const res = await Promise.race([answer, aborted])
    reader = res.body?.getReader()
    return await use({ status: res.status, headers: res.headers, body: chunks(reader, controller.signal), watchdog })
  } catch (err) {
    if (controller.signal.aborted) throw controller.signal.reason
    throw err instanceof Error ? err : new Error(`${url} cannot be fetched`, { cause: err })
  } finally {
    clearTimeout(deadline)
    watchdog.stop()
    signal.removeEventListener('abort', stop)
    controller.abort()
    cancel() // what has not been read is not wanted
  }
}

/** A Watchdog calls bite when it has not been reset for as long as it was last told. */
class Watchdog {
  constructor(bite) {
    this.bite = bite
  }

  reset(ms) {
    clearTimeout(this.timer)
    this.timer = timer(() => this.bite(ms), ms)
  }

  stop() {
    clearTimeout(this.timer)
  }
}

async function* chunks(reader, signal) {
  if (!reader) return
  for (;;) {
    signal.throwIfAborted()
    const { done, value } = await reader.read()
    signal.throwIfAborted() // then done only says that it was cancelled
    if (done) return
    yield value
  }
}

/** readAll reads the parts of a body of at most limit bytes. heard is called for each part. */
export async function readAll(body, limit, heard = () => {}) {
  const parts = []
  let length = 0
  for await (const part of body) {
    heard()
    parts.push(part)
    length += part.length
    if (length > limit) throw new Error(`an answer of more than ${limit} bytes`)
  }
  const all = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

/** ageOf is how many milliseconds a cache on the way has held an answer (RFC 9111 §5.1). */
export function ageOf(headers) {
  const text = (headers.get('Age') ?? '').split(',')[0].trim()
  return /^\+?[0-9]+$/.test(text) ? Math.min(Number(text), 2 ** 30) * 1000 : 0
}

/** An Outage is logged when it begins and when it ends. */
export class Outage {
  constructor(logger, what) {
    this.logger = logger
    this.what = what
    this.on = false
  }

  note(error) {
    if (error && !this.on) this.logger.warn(`${this.what} is out of reach; trying again until it is there`, { error: reason(error) })
    if (!error && this.on) this.logger.info(`${this.what} is there again`)
    this.on = error !== undefined
  }
}

// Of several addresses of a host, none of which answers, the cause has a code alone.
const reason = ({ message, cause }) => (cause === undefined ? message : `${message}: ${cause?.message || cause?.code || String(cause)}`)
