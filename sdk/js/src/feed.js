// The feed of revocations over time: what is known to be revoked, and as of when all of it is known.
// A Feed decides and is told the time; the follower fetches and waits.

import { after, age, since } from './clock.js'
import { clockDrift, expiredKept, pageLimit, pageTimeout, patienceLeast, streamLag, waitMost } from './constants.js'
import { VerifyError } from './errors.js'
import { ageOf } from './network.js'
import { List, parseEntry } from './revoked.js'

/** version is the highest version of the feed that this package knows. It says which kinds of entries there are. */
export const version = 1

const sweepEvery = 1000 // milliseconds; one part in 64 of the list

/** A Feed is what is known of the feed. It is told what happens and when. */
export class Feed {
  /** maxStaleness is in milliseconds. */
  constructor({ maxStaleness, onStale, logger }) {
    this.maxStaleness = maxStaleness
    this.onStale = onStale
    this.logger = logger
    this.list = new List()
    this.confirmed = undefined // when everything was last known
    this.stale = false // the present outage has been logged
    this.log = '' // id of the log; empty: none has been read
    this.next = 0 // entries up to this number have been applied
    this.beat = 0 // how often the server confirms the head, by its own account; 0: unknown
    this.swept = undefined
    this.pages = [] // the last ones that confirmed something: {written, moment}
  }

  /**
   * check refuses a token that was revoked. If that is not known well enough for the route, it does
   * what the route's onStale says; but it accepts nothing while the feed has never been read.
   */
  check(token, digests, now, { maxStaleness = this.maxStaleness, onStale = this.onStale } = {}) {
    if (this.list.revoked(digests, token.epoch, token.issuedAt)) throw new VerifyError('token_revoked')
    if (this.within(maxStaleness, now)) return
    if (!this.within(this.maxStaleness, now) && !this.stale) {
      this.stale = true
      this.logger.error('it is not known any more which tokens have been revoked', {
        confirmed: this.confirmed && new Date(this.confirmed.wall).toISOString(), maxStaleness: this.maxStaleness / 1000, onStale: this.onStale,
      })
    }
    if (onStale === 'accept' && this.confirmed) return
    throw new VerifyError('revocation_stale')
  }

  /** within reports whether the last confirmation is recent enough. */
  within(enough, now) {
    return this.confirmed !== undefined && age(this.confirmed, now) <= enough
  }

  /**
   * silence is how long a stream may bring nothing, and how old the server's own knowledge may be,
   * before another replica is asked: so short that the answer comes before half of maxStaleness has
   * passed, but no shorter than two heartbeats if there is room for them.
   */
  silence() {
    return Math.min(Math.max(2 * this.beat, this.maxStaleness / 4), this.maxStaleness / 2)
  }

  /**
   * patience is how long the first bytes of a page, and the next ones, are waited for. A frozen replica
   * accepts connections and never answers, so another one is asked soon. A server that is merely slow
   * is given twice as long after each failure.
   */
  patience(failures) {
    const first = Math.max(this.maxStaleness / 8, patienceLeast)
    return Math.min(first * 2 ** Math.min(Math.max(failures - 1, 0), 16), pageTimeout)
  }

  /** page returns how to ask for the next page. With mayWait, the server may hold it back until there is something new. */
  page(mayWait, failures) {
    const patience = this.patience(failures)
    const query = { version, after: this.next, limit: pageLimit }
    if (!mayWait) return { query, timeout: Math.min(pageTimeout, this.maxStaleness), begin: patience, patience }
    // So short that a confirmation never comes close to maxStaleness; in whole seconds.
    const wait = Math.max(1, Math.floor(Math.min(this.maxStaleness / 4, waitMost) / 1000)) * 1000
    return {
      query: { ...query, wait: wait / 1000 },
      timeout: wait + Math.min(pageTimeout, this.maxStaleness - wait),
      begin: patience + wait,
      patience,
    }
  }

  /**
   * takePage applies a page, of which the JSON was read, that was asked for and answered at these
   * moments. It returns whether the server held it back, and whether there is more to ask for at once.
   * A page that cannot be understood in full changes nothing.
   */
  takePage(asked, answered, headers, page) {
    const p = parsePage(page)
    this.beat = Math.max(p.heartbeat, 0)
    const from = this.next
    if (p.log !== this.log || p.snapshot) {
      this.startAnew(p.log)
      // Without snapshot, the page begins in the middle of another log.
      if (from > 0 && !p.snapshot) return { held: p.waited !== undefined, more: true }
    }
    const last = p.entries.length ? p.entries[p.entries.length - 1].seq : 0
    const next = p.more ? last : Math.max(last, p.head)
    if (p.more && next <= this.next) throw new Error('the feed has more, but does not go on')
    this.list.apply(p.entries)
    this.next = Math.max(this.next, next)
    if (!p.more) {
      // A cache counts whole seconds.
      const cached = headers.get('Age') ? ageOf(headers) + 1000 : 0
      const moment = after(this.writtenAfter(asked, answered, p), -p.age - cached)
      this.confirm(this.firstSeen(`${p.log} ${page.as_of} ${p.age}`, moment), answered)
      this.checkCurrent(p.age)
    }
    return { held: p.waited !== undefined, more: p.more }
  }

  /**
   * firstSeen returns what a page confirms: a moment, or what it confirmed when it came before. A server
   * never writes two pages at the same moment of its clock, so a cache has answered with it again. One
   * that sends no Age would not be noticed otherwise, and browsers do not show Age to pages of other origins.
   */
  firstSeen(written, moment) {
    const seen = this.pages.find(page => page.written === written)
    if (seen) return since(seen.moment, moment) > 0 ? seen.moment : moment
    this.pages = [{ written, moment }, ...this.pages.slice(0, 3)]
    return moment
  }

  /**
   * writtenAfter returns a moment after which the page was written: when it was asked for, and as much
   * later as the server says that it held the page back. If that is longer than has passed, a cache
   * has answered with somebody else's page; then only the moment of the request counts.
   */
  writtenAfter(asked, answered, { waited }) {
    if (waited === undefined || waited < 0) return asked
    const passed = since(asked, answered)
    return waited > passed + clockDrift ? asked : after(asked, Math.min(waited, passed))
  }

  /** checkCurrent throws if the server's own knowledge is so old that this reader would be stale soon. Another replica may know more. */
  checkCurrent(age) {
    if (age > this.silence()) throw new Error('this replica of the server is cut off from the log of revocations')
  }

  /** startAnew begins to read a log from its beginning. What was known stays known. */
  startAnew(log) {
    if (log === this.log && this.next === 0) return
    if (this.log) {
      this.logger.warn('the feed of revocations begins anew; what was known to be revoked stays revoked', { log: this.log, readTo: this.next, newLog: log })
    }
    this.log = log
    this.next = 0
  }

  /** confirm notes that everything that was revoked before a moment is known. */
  confirm(moment, now) {
    if (this.confirmed && since(moment, this.confirmed) > 0) return
    this.confirmed = moment
    if (this.stale && this.within(this.maxStaleness, now)) {
      this.stale = false
      this.logger.info('it is known again which tokens have been revoked')
    }
  }

  /** sweep forgets expired entries now and then. */
  sweep(now) {
    if (this.swept && since(this.swept, now) < sweepEvery) return
    this.swept = now
    this.list.sweep(this.horizon(now))
  }

  /** horizon is the time, in seconds since 1970, from which on an entry may expire and is kept. */
  horizon(now) {
    return Math.floor((now.wall - expiredKept) / 1000)
  }
}

/** A Stream is one event stream. */
export class Stream {
  /** begun is when it was asked for. */
  constructor(feed, begun) {
    this.feed = feed
    this.begun = begun
    // The server's first event is of this moment of the server's clock, in milliseconds, which was not
    // before begun. So a moment t of the server's clock was not before begun + (t − server), however
    // long an event was on the way. Only differences within one clock are used.
    this.server = undefined
    this.useful = false // it confirmed something new
  }

  /** take applies an event. After an error the stream is of no more use. */
  take({ name, data }, now) {
    switch (name) {
      case 'snapshot':
      case 'resume':
      case 'head':
        return this.#head(name, parseHead(JSON.parse(data)), now)
      case 'revocation': {
        const entry = parseEntry(JSON.parse(data))
        if (this.server === undefined) throw new Error('the stream does not say where it begins')
        this.feed.list.apply([entry])
        this.feed.next = Math.max(this.feed.next, entry.seq)
      }
    } // events of other names are not about revocations
  }

  #head(name, head, now) {
    const { feed } = this
    this.server ??= head.asOf + head.age
    if (name === 'snapshot') return feed.startAnew(head.log)
    if (head.log !== feed.log) throw new Error(`the stream goes on with another log, ${JSON.stringify(head.log)}`)
    if (name === 'resume') return
    feed.next = Math.max(feed.next, head.head)
    const bySum = after(this.begun, head.asOf - this.server)
    const byAge = after(now, -head.age)
    const earlier = since(bySum, byAge) < 0 ? byAge : bySum
    feed.confirm(earlier, now)
    // By both clocks: begun would make what this stream confirms old for ever if the wall clock was set on.
    this.useful = age(earlier, byAge) <= Math.min(streamLag, feed.maxStaleness / 2)
    if (!this.useful) throw new Error('the stream is far behind, or a clock was set')
    feed.checkCurrent(head.age)
  }
}

/** checkAnswer throws if an answer is none of the feed, in the format that was asked for. */
export function checkAnswer(url, { status, headers }, accept) {
  const type = (headers.get('Content-Type') ?? '').split(';')[0].trim().toLowerCase()
  if (status === 410) throw new Error(`${url} has ended version ${version} of the feed: @watchword-auth/verify must be updated`)
  if (status !== 200 || type !== accept) throw new Error(`${url} answers ${status}, ${type}`)
}

const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/

/** parseHead reads what pages and events have in common. asOf is in milliseconds since 1970, by the server's clock. */
function parseHead(head) {
  if (head === null || typeof head !== 'object' || Array.isArray(head)) throw new Error('this is not of the feed')
  const number = name => {
    const n = head[name] ?? 0
    if (!Number.isSafeInteger(n)) throw new Error(`${name} is not a whole number`)
    return n
  }
  const version_ = number('version') || 1 // absent: 1
  if (version_ < 1 || version_ > version) {
    throw new Error(`this is version ${version_} of the feed; this reader knows version ${version} and must be updated`)
  }
  const asOf = typeof head.as_of === 'string' && time.test(head.as_of) ? Date.parse(head.as_of) : NaN
  const age = number('age_ms')
  if (typeof head.log !== 'string' || !head.log || Number.isNaN(asOf) || head.as_of.startsWith('0001-01-01T00:00:00') || age < 0) {
    throw new Error('this is not of the feed: it does not say as of when it is true')
  }
  return { log: head.log, head: number('head'), asOf, age, number }
}

function parsePage(page) {
  const head = parseHead(page)
  const entries = page.entries ?? []
  if (!Array.isArray(entries)) throw new Error('entries is not an array')
  for (const name of ['more', 'snapshot']) {
    if (typeof (page[name] ?? false) !== 'boolean') throw new Error(`${name} is neither true nor false`)
  }
  return {
    ...head,
    heartbeat: head.number('heartbeat_ms'),
    waited: page.waited_ms === undefined || page.waited_ms === null ? undefined : head.number('waited_ms'),
    entries: entries.map(parseEntry),
    more: page.more ?? false,
    snapshot: page.snapshot ?? false,
  }
}
