// A strict reader of JSON objects. JSON.parse takes the last of two equal members, so that what
// was signed could be read in two ways.

// maxDepth bounds how deep the JSON of a token or a key may be nested.
const maxDepth = 16

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const number = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y
const space = /[ \t\n\r]*/y
const plain = /"[^"\\\x00-\x1f]*"/y
const escaped = /"(?:[^"\\\x00-\x1f]|\\[^\x00-\x1f])*"/y

/**
 * decodeObject reads exactly one JSON object from bytes: valid UTF-8, no member twice at any depth
 * (RFC 7515 §4, RFC 7519 §4), nothing behind it. With numbers, a Map, it puts there the digits of
 * the top-level members that are numbers, as they were written.
 */
export function decodeObject(bytes, numbers) {
  const d = new Decoder(utf8.decode(bytes), numbers)
  if (d.peek() !== '{') d.fail()
  const members = d.object(maxDepth)
  if (d.peek() !== undefined) d.fail()
  return members
}

class Decoder {
  constructor(text, numbers) {
    this.text = text
    this.at = 0
    this.numbers = numbers
  }

  fail(what = 'not a JSON object') {
    throw new SyntaxError(what)
  }

  /** match takes what the pattern matches at this place, or returns undefined. */
  match(pattern) {
    pattern.lastIndex = this.at
    if (!pattern.test(this.text)) return undefined
    const from = this.at
    this.at = pattern.lastIndex
    return this.text.slice(from, this.at)
  }

  /** peek returns the next character that is not white space. It does not take it. */
  peek() {
    if (this.text.charCodeAt(this.at) <= 32) this.match(space)
    return this.text[this.at]
  }

  /** take takes the next character that is not white space if it is c. */
  take(c) {
    if (this.peek() !== c) return false
    this.at++
    return true
  }

  value(depth, name) {
    switch (this.peek()) {
      case '{':
        return this.object(depth - 1)
      case '[':
        return this.array(depth - 1)
      case '"':
        return this.string()
      case 't':
        return this.literal('true', true)
      case 'f':
        return this.literal('false', false)
      case 'n':
        return this.literal('null', null)
    }
    const digits = this.match(number) ?? this.fail()
    if (name !== undefined && depth === maxDepth) this.numbers?.set(name, digits)
    return Number(digits)
  }

  object(depth) {
    if (depth < 0) this.fail('the JSON is nested too deep')
    const members = {}
    this.take('{')
    if (this.take('}')) return members
    for (;;) {
      if (this.peek() !== '"') this.fail()
      const name = this.string()
      if (Object.hasOwn(members, name)) this.fail('a JSON object has the same member twice')
      if (!this.take(':')) this.fail()
      const value = this.value(depth, name)
      if (name === '__proto__') Object.defineProperty(members, name, { value, enumerable: true, configurable: true, writable: true })
      else members[name] = value
      if (this.take('}')) return members
      if (!this.take(',')) this.fail()
    }
  }

  array(depth) {
    if (depth < 0) this.fail('the JSON is nested too deep')
    const items = []
    this.take('[')
    if (this.take(']')) return items
    for (;;) {
      items.push(this.value(depth))
      if (this.take(']')) return items
      if (!this.take(',')) this.fail()
    }
  }

  /** string leaves the escapes to JSON.parse; few tokens have any. */
  string() {
    const quoted = this.match(plain)
    if (quoted !== undefined) return quoted.slice(1, -1)
    const text = this.unescaped(this.match(escaped) ?? this.fail())
    return text.toWellFormed?.() ?? text // what is no character has no other spelling
  }

  /** unescaped fails without the text, which JSON.parse would quote. */
  unescaped(quoted) {
    try {
      return JSON.parse(quoted)
    } catch {
      this.fail()
    }
  }

  literal(word, value) {
    if (!this.text.startsWith(word, this.at)) this.fail()
    this.at += word.length
    return value
  }
}
