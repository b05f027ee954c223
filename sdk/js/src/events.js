import { eventLength } from './constants.js'

const newline = 10
const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })

/** An EventReader reads the events of a text/event-stream (WHATWG HTML §9.2). An event's id is not needed, since entries carry their number. */
export class EventReader {
  #line = new Uint8Array(4096) // the line that has not ended yet
  #length = 0
  #name = ''
  #data = undefined
  #size = 0; // of #data, in bytes

  /** push takes the next part of the stream, and gives the events that end in it. It throws if one is too long. */
  *push(chunk) {
    let from = 0
    for (;;) {
      const end = chunk.indexOf(newline, from)
      const part = chunk.subarray(from, end < 0 ? chunk.length : end)
      if (this.#length + part.length >= eventLength) throw new Error('a line of the stream is too long')
      if (end < 0) return this.#keep(part)
      let line = part
      if (this.#length) {
        this.#keep(part)
        line = this.#line.subarray(0, this.#length)
        this.#length = 0
      }
      const event = this.#end(line)
      if (event) yield event
      from = end + 1
    }
  }

  #keep(part) {
    if (this.#length + part.length > this.#line.length) {
      const larger = new Uint8Array(eventLength)
      larger.set(this.#line.subarray(0, this.#length))
      this.#line = larger
    }
    this.#line.set(part, this.#length)
    this.#length += part.length
  }

  #end(bytes) {
    if (bytes[bytes.length - 1] === 13) bytes = bytes.subarray(0, -1)
    if (!bytes.length) {
      const event = this.#data ? { name: this.#name, data: this.#data } : undefined
      this.#name = ''
      this.#data = undefined
      this.#size = 0
      return event
    }
    const line = utf8.decode(bytes)
    const colon = line.indexOf(':')
    const field = colon < 0 ? line : line.slice(0, colon)
    let value = colon < 0 ? '' : line.slice(colon + 1)
    if (value.startsWith(' ')) value = value.slice(1)
    if (field === 'event') this.#name = value
    if (field === 'data') {
      this.#size += bytes.length
      if (this.#size > eventLength) throw new Error('an event is too long')
      this.#data = this.#data ? `${this.#data}\n${value}` : value
    }
  }
}
