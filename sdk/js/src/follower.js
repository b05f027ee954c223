// The follower keeps a Feed up to date: it reads pages until it has all, then follows the event
// stream until that ends, and so on. While streams bring nothing, it reads pages alone.

import { random, retryPause, since, sleep } from './clock.js'
import { pageLength, pageRetryFirst, pageRetryMost, pollEvery, reattachMost, streamLifeMost, withoutStream, withoutStreamMost } from './constants.js'
import { EventReader } from './events.js'
import { checkAnswer, Stream, version } from './feed.js'
import { Signal } from './keys.js'
import { get, Outage, readAll } from './network.js'

export class Follower {
  constructor(feed, { revocationsUrl, clock, fetch, logger, signal }) {
    this.feed = feed
    this.url = revocationsUrl
    this.clock = clock
    this.fetch = fetch
    this.signal = signal
    this.tried = new Signal() // after the feed was asked for the first time
    this.failures = 0 // pages that failed in a row
    this.pages = new Outage(logger, 'the feed of revocations')
    this.streams = new Outage(logger, 'the event stream of revocations (pages are polled instead)')
  }

  async run() {
    let streamAgain // pages alone are read until then
    let without = withoutStream
    let mayWait = false // everything was known a moment ago
    while (!this.signal.aborted) {
      let held = false
      let error
      try {
        held = await this.#poll(mayWait)
      } catch (err) {
        error = err
      }
      const byPages = streamAgain !== undefined && since(this.clock(), streamAgain) > 0
      const waited = held || !mayWait // without mayWait it is not known whether the server holds pages back
      mayWait = !error && byPages
      this.tried.set()
      if (this.signal.aborted) return
      this.feed.sweep(this.clock())
      this.pages.note(error)
      if (error) {
        await this.#sleep(this.#pageRetry())
        this.failures++
        continue
      }
      this.failures = 0
      if (byPages) {
        await this.#sleep(waited ? { least: pollEvery / 20, most: pollEvery / 10 } : { least: pollEvery * 0.8, most: pollEvery })
        continue
      }
      const begun = this.clock()
      const { useful, error: ended } = await this.#stream()
      if (this.signal.aborted) return
      if (useful) {
        this.streams.note()
        without = withoutStream
      } else {
        this.streams.note(ended)
        const now = this.clock()
        streamAgain = { monotonic: now.monotonic + random({ least: without / 2, most: without }) }
        without = Math.min(2 * without, withoutStreamMost)
      }
      const lived = useful && since(begun, this.clock()) >= pollEvery
      await this.#sleep(lived ? { least: 0, most: reattachMost } : { least: pollEvery / 10, most: pollEvery / 2 })
    }
    this.tried.set()
  }

  #sleep(range) {
    return sleep(random(range), this.signal)
  }

  /**
   * #pageRetry is the pause after a page that failed. After the first two failures it is short: another
   * replica is asked, and once more, because the load balancer may have chosen the same one again.
   */
  #pageRetry() {
    return this.failures <= 1 ? { least: 0, most: reattachMost } : retryPause(this.failures - 1, pageRetryFirst, pageRetryMost)
  }

  /** #poll reads pages up to the head. It returns whether the server held one back. */
  async #poll(mayWait) {
    let held = false
    for (;;) {
      const ask = this.feed.page(mayWait, this.failures)
      mayWait = false // the next page is there already
      const asked = this.clock()
      const { headers, page } = await this.#get(ask.query, 'application/json', undefined, ask, async ({ headers, body, watchdog }) => {
        watchdog.reset(ask.patience) // the page is not held back any more
        const bytes = await readAll(body, pageLength, () => watchdog.reset(ask.patience))
        return { headers, page: JSON.parse(new TextDecoder().decode(bytes)) }
      })
      const taken = this.feed.takePage(asked, this.clock(), headers, page)
      held ||= taken.held
      if (!taken.more) return held
    }
  }

  /**
   * #stream follows the event stream until it ends, is silent for too long, or has lived long enough. It
   * returns whether the stream was useful, and how it ended.
   */
  async #stream() {
    const silence = this.feed.silence()
    const stream = new Stream(this.feed, this.clock())
    const bounds = { timeout: random({ least: streamLifeMost / 2, most: streamLifeMost }), begin: silence }
    try {
      await this.#get({ version }, 'text/event-stream', `${this.feed.log}:${this.feed.next}`, bounds, async ({ body, watchdog }) => {
        const events = new EventReader()
        for await (const chunk of body) {
          for (const event of events.push(chunk)) {
            watchdog.reset(silence)
            stream.take(event, this.clock())
          }
          this.feed.sweep(this.clock())
        }
      })
      return { useful: stream.useful, error: new Error('the stream ended') }
    } catch (error) {
      return { useful: stream.useful, error }
    }
  }

  #get(query, accept, lastEventId, { timeout, begin }, use) {
    const url = new URL(this.url)
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
    const headers = { Accept: accept, ...(lastEventId && { 'Last-Event-ID': lastEventId }) }
    return get(this.fetch, url.href, { headers, signal: this.signal, timeout, patience: begin }, answer => {
      checkAnswer(url.href, answer, accept)
      return use(answer)
    })
  }
}
