// SHA-256 (FIPS 180-4 §6.2) without waiting. crypto.subtle.digest is asynchronous, and takes longer
// for the three names of a token than a third of the verification of its signature.

// The first 32 bits of the fractional parts of the square and cube roots of the first primes.
const { initial, constants } = (() => {
  const primes = []
  for (let n = 2; primes.length < 64; n++) if (primes.every(p => n % p)) primes.push(n)
  const fraction = (n, root) => {
    // Exact integer roots: floor(root of n × 2^(32·k)), of which the lower 32 bits are wanted.
    const target = BigInt(n) << BigInt(32 * root)
    let low = 0n
    let high = 1n << 40n
    while (high - low > 1n) {
      const middle = (low + high) >> 1n
      if (middle ** BigInt(root) <= target) low = middle
      else high = middle
    }
    return Number(low & 0xffffffffn) | 0
  }
  return {
    initial: Int32Array.from(primes.slice(0, 8), p => fraction(p, 2)),
    constants: Int32Array.from(primes, p => fraction(p, 3)),
  }
})()

// What a digest needs is kept for the next one: there is no waiting in between.
const w = new Int32Array(64)
const short = new Uint8Array(128)

/** sha256 returns the digest of bytes as eight numbers of 32 bits. */
export function sha256(bytes) {
  const length = bytes.length
  const whole = (length + 72) & ~63
  const padded = whole > short.length ? new Uint8Array(whole) : short
  padded.fill(0, length, whole)
  padded.set(bytes)
  padded[length] = 0x80
  for (let at = whole - 1, bits = length * 8; bits > 0; bits = Math.floor(bits / 256)) padded[at--] = bits
  const h = initial.slice()
  for (let block = 0; block < whole; block += 64) {
    for (let i = 0, at = block; i < 16; i++, at += 4) w[i] = (padded[at] << 24) | (padded[at + 1] << 16) | (padded[at + 2] << 8) | padded[at + 3]
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15]
      const y = w[i - 2]
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10)
      w[i] = w[i - 16] + s0 + w[i - 7] + s1
    }
    let a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], last = h[7]
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))
      const t1 = (last + s1 + ((e & f) ^ (~e & g)) + constants[i] + w[i]) | 0
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0
      last = g
      g = f
      f = e
      e = (d + t1) | 0
      d = c
      c = b
      b = a
      a = (t1 + t2) | 0
    }
    h[0] += a
    h[1] += b
    h[2] += c
    h[3] += d
    h[4] += e
    h[5] += f
    h[6] += g
    h[7] += last
  }
  return h
}
