/** ordinary is how many characters of a token count as one token. A longer one counts as several, so that the memory is bounded whatever claims tokens have. */
const ordinary = 2048

/**
 * A Cache remembers tokens that were verified, by their text. Only good tokens are kept, so that nobody
 * can fill the memory without valid tokens. The one that was not used for longest is forgotten first.
 */
export class Cache {
  #size // in ordinary tokens
  #used = 0
  #entries = new Map() // in the order of their last use

  constructor(size) {
    this.#size = size
  }

  get(text) {
    const entry = this.#entries.get(text)
    if (entry) {
      this.#entries.delete(text)
      this.#entries.set(text, entry)
    }
    return entry
  }

  put(text, entry) {
    this.delete(text)
    // A copy: the text may be a part of something large, and would keep all of it.
    this.#entries.set(text.split('.').join('.'), entry)
    this.#used += weight(text)
    for (const oldest of this.#entries.keys()) {
      if (this.#used <= this.#size) break
      this.delete(oldest)
    }
  }

  delete(text) {
    if (this.#entries.delete(text)) this.#used -= weight(text)
  }

  get length() {
    return this.#entries.size
  }
}

const weight = text => 1 + Math.floor(text.length / ordinary)
