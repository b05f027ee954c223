import { base64url } from 'jose'

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

/**
 * fault says what is wrong with unpadded base64url (RFC 7515 §2), or returns undefined. The
 * unused bits of the last character are zero, so that a value has exactly one spelling.
 */
export function fault(text) {
  if (!/^[A-Za-z0-9_-]*$/.test(text) || text.endsWith('\n') || text.length % 4 === 1) return 'encoding'
  const unused = [0, 0, 15, 3][text.length % 4]
  return unused && alphabet.indexOf(text[text.length - 1]) & unused ? 'stray bits' : undefined
}

/** decode returns the bytes of strict base64url, or throws. */
export function decode(text) {
  if (typeof text !== 'string' || fault(text)) throw new Error('not base64url without padding')
  return base64url.decode(text)
}
