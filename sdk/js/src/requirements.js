// What a token must meet besides being good. No token meets what is not a Requirement.

import { leewayMost } from './constants.js'
import { detailed } from './errors.js'

const anybody = 'any valid token'
const nobody = 'nobody may'

// An outcome is the sum of what is wrong. It is better than those that are greater.
const met = 0
const weak = 1 // it would be met if the user authenticated again
const unscoped = 2 // it would be met if the token had more scopes
const denied = 4 // neither would help

/** A Requirement is a condition that a token must meet. Its text is part of the answer to a request that is refused. */
export class Requirement {
  #judge
  #joint

  /** judge returns {outcome, again}: how the user has to authenticate, and the scopes, whether or not that is so. joint is what joins the parts of the text, if there are several. */
  constructor(text, judge, joint) {
    this.text = text
    this.#judge = judge
    this.#joint = joint
    Object.freeze(this)
  }

  toString() {
    return this.text
  }

  judge(token, clock) {
    return this.#judge(token, clock)
  }

  get joint() {
    return this.#joint
  }
}

const checked = requirements => {
  for (const r of requirements) if (!(r instanceof Requirement)) throw new TypeError(`${String(r)} is not a requirement`)
  return requirements
}

/** that makes a requirement from a function. The text says what is required. */
export function that(text, is) {
  if (typeof text !== 'string' || typeof is !== 'function') throw new TypeError('that takes a text and a function')
  return new Requirement(text, token => ({ outcome: is(token) === true ? met : denied }))
}

/**
 * claim requires that the token holds the value under the name. A user who has several values has
 * them in one claim, joined with commas. A value written like that requires all that it lists.
 */
export function claim(name, value) {
  if (typeof name !== 'string' || typeof value !== 'string') throw new TypeError('claim takes a name and a value')
  return that(`${name}=${value}`, token => value.split(',').every(one => token.has(name, one)))
}

/**
 * any requires at least one of the requirements. No token meets any of none. If a token meets none of
 * them, the answer is about the one that is met the soonest: by authenticating again, else by getting
 * scopes, else by both. Of several like that it is about the first one.
 */
export function any(...of) {
  checked(of)
  return new Requirement(join(of, ' or ', nobody), (token, clock) => {
    let best = { outcome: denied }
    for (const r of of) {
      const v = r.judge(token, clock)
      if (v.outcome < best.outcome) best = v
    }
    return best
  }, jointOf(of, ' or '))
}

/** all requires every one of the requirements. */
export function all(...of) {
  checked(of)
  return new Requirement(join(of, ' and ', anybody), (token, clock) => {
    let worst = { outcome: met }
    for (const r of of) {
      const v = r.judge(token, clock)
      worst = { outcome: worst.outcome | v.outcome, again: both(worst.again, v.again) }
    }
    return worst
  }, jointOf(of, ' and '))
}

/**
 * freshAuth requires that the user has authenticated no longer ago than that many seconds, by the
 * token's auth_time. Renewing a token is no authentication. No token without auth_time meets it,
 * and none with an auth_time in the future, but for a clock that runs behind by the verifier's
 * leeway, or by what the issuer allows for when it dates nbf back.
 */
export function freshAuth(seconds) {
  if (typeof seconds !== 'number' || !Number.isFinite(seconds)) throw new TypeError('freshAuth takes a number of seconds')
  const text = `auth_time within ${duration(seconds)}`
  if (seconds <= 0) return that(text, () => false)
  const maxAge = Math.max(Math.trunc(seconds), 1)
  return curable(text, weak, { maxAge }, (token, { now, leeway }) => {
    if (token.authTime === undefined) return false
    const tooOld = now > token.authTime + maxAge + leeway
    const inFuture = token.authTime > now + leeway + datedBack(token)
    return !tooOld && !inFuture
  })
}

/** datedBack returns by how much the token may be used before it was issued, by a clock that runs behind. */
const datedBack = token => (token.notBefore === undefined ? 0 : Math.min(Math.max(0, token.issuedAt - token.notBefore), leewayMost / 1000))

/** duration writes seconds as Go does, such as 5m0s, so that the answers of all verifiers are the same. */
function duration(seconds) {
  const sign = seconds < 0 ? '-' : ''
  const n = Math.abs(seconds)
  if (n === 0) return '0s'
  if (n < 1) return `${sign}${Math.round(n * 1e6) / 1e3}ms`
  const minutes = Math.floor(n / 60)
  const rest = `${Math.round((n - 60 * minutes) * 1e6) / 1e6}s`
  if (minutes === 0) return sign + rest
  if (minutes < 60) return `${sign}${minutes}m${rest}`
  return `${sign}${Math.floor(minutes / 60)}h${minutes % 60}m${rest}`
}

/**
 * amr requires that the user has authenticated by at least one of the methods, such as "otp" or
 * "hwk" (RFC 8176), by the token's amr. No token meets amr of none.
 */
export const amr = (...methods) => oneOf('amr', methods, {}, token => token.amr ?? [])

/** acr requires that the token's acr is one of the values, such as "aal2". No token meets acr of none. */
export const acr = (...values) => oneOf('acr', values, { acrValues: values }, token => [token.acr])

function oneOf(name, values, again, has) {
  if (values.some(value => typeof value !== 'string')) throw new TypeError(`${name} takes strings`)
  const wanted = values.filter(value => value !== '')
  if (!wanted.length) return that(nobody, () => false)
  return curable(wanted.map(value => `${name}=${value}`).join(' or '), weak, again,
    token => has(token).some(one => wanted.includes(one)), wanted.length > 1 ? ' or ' : undefined)
}

/**
 * scope requires that the token has all of the scopes, such as "orders:read", by its scope (RFC 8693
 * §4.2, RFC 9068 §2.2.3). No token meets scope of none, or of what cannot be a scope.
 */
export function scope(...names) {
  if (!names.length || !names.every(isScope)) return that(nobody, () => false)
  const wanted = [...new Set(names)]
  return curable(wanted.map(name => `scope=${name}`).join(' and '), unscoped, { scope: wanted },
    token => wanted.every(name => token.scope?.includes(name)), wanted.length > 1 ? ' and ' : undefined)
}

/** isScope reports whether a text can be a scope: printable ASCII without the space, the quotation mark and the backslash (RFC 6749 §3.3). */
export const isScope = text => typeof text === 'string' && /^[!#-[\]-~]+$/.test(text) && !text.endsWith('\n')

/**
 * curable makes a requirement that a token does not meet until its client has got another one, as again
 * says. Until then, lacking is the outcome.
 */
function curable(text, lacking, again, is, joint) {
  return new Requirement(text, (token, clock) => ({ outcome: is(token, clock) ? met : lacking, again }), joint)
}

/** both returns what meets both (RFC 9470 §3). */
function both(a = {}, b = {}) {
  const maxAge = Math.min(a.maxAge ?? Infinity, b.maxAge ?? Infinity)
  const acrValues = a.acrValues?.length && b.acrValues?.length ? a.acrValues.filter(v => b.acrValues.includes(v)) : a.acrValues?.length ? a.acrValues : b.acrValues
  const scope = a.scope || b.scope ? [...new Set([...(a.scope ?? []), ...(b.scope ?? [])])] : undefined
  return { ...(maxAge < Infinity && { maxAge }), ...(acrValues && { acrValues }), ...(scope && { scope }) }
}

/** join joins the texts of requirements. A part that is itself joined in the other way gets parentheses. */
function join(of, joint, empty) {
  if (!of.length) return empty
  return of.map(r => (of.length > 1 && r.joint && r.joint !== joint ? `(${r.text})` : r.text)).join(joint)
}

const jointOf = (of, joint) => (of.length > 1 ? joint : of[0]?.joint)

/**
 * judgeAll refuses a token that does not meet a requirement. What neither an authentication nor scopes
 * would change comes first. If both are lacking, the client gets both at once: it authenticates its user
 * again and asks for the scopes (RFC 9470 §3). now and leeway are in seconds.
 */
export function judgeAll(requirements, token, clock) {
  let outcome = met
  let again = {}
  const lacking = []
  for (const r of requirements) {
    const v = r.judge(token, clock)
    outcome |= v.outcome
    again = both(again, v.again)
    if (v.outcome >= denied) throw detailed('forbidden', r.text)
    if (v.outcome !== met) lacking.push(r)
  }
  if (!lacking.length) return
  const { text } = all(...lacking)
  if (outcome === unscoped) throw detailed('forbidden', text, { scope: again.scope })
  const { maxAge, acrValues } = again
  throw detailed('reauthentication_required', text, {
    reauthentication: { ...(maxAge && { maxAge }), ...(acrValues && { acrValues }) },
    ...(outcome & unscoped && { scope: again.scope }),
  })
}
