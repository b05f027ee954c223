// Moments and timers. A moment has the time of two clocks, in milliseconds: the monotonic one, and
// the wall clock, which counts from 1970.

/** systemClock is this machine's. */
export const systemClock = () => ({ monotonic: performance.now(), wall: Date.now() })

export const after = (moment, ms) => ({ monotonic: moment.monotonic + ms, wall: moment.wall + ms })

/** since returns how many milliseconds lie between two moments, by the monotonic clock. */
export const since = (moment, now) => now.monotonic - moment.monotonic

/**
 * age returns how long ago a moment was. Of the two clocks it takes the one that says more, because
 * the monotonic one may have stood still with the machine.
 */
export const age = (moment, now) => Math.max(now.monotonic - moment.monotonic, now.wall - moment.wall)

/** timer is setTimeout that does not keep a Node process alive. */
export function timer(callback, ms) {
  const t = setTimeout(callback, ms)
  t.unref?.()
  return t
}

/** random returns a number between two, so that many verifiers do not ask in step. */
export const random = ({ least, most }) => least + Math.random() * (most - least)

/** retryPause doubles with every failure, up to a bound. */
export function retryPause(failures, first, most) {
  const ms = Math.min(first * 2 ** Math.min(failures, 16), most)
  return { least: ms / 2, most: ms }
}

/** sleep returns after a time, or when the signal is aborted or something else wakes it. */
export function sleep(ms, signal, wake) {
  return new Promise(resolve => {
    if (signal.aborted) return resolve()
    const done = () => {
      clearTimeout(t)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const t = timer(done, ms)
    signal.addEventListener('abort', done)
    wake?.then(done)
  })
}
