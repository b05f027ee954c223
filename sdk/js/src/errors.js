// Why a token was refused, or cannot be judged. The codes are those of the Go package verify.

/** The sentence for people that belongs to each code. */
export const details = {
  token_missing: 'send an access token: Authorization: Bearer <token>',
  invalid_request: 'the request has several Authorization headers',
  token_malformed: 'this is not a well-formed access token',
  token_type: 'this is a token of another kind, not an access token',
  token_algorithm: "the token's signature algorithm is not accepted",
  token_key_unknown: 'the key that the token names is not known',
  token_signature: "the token's signature is wrong",
  token_claim_missing: 'the token lacks a required claim',
  token_issuer: 'the token comes from another issuer',
  token_audience: 'the token is meant for another audience',
  token_expired: 'the token has expired',
  token_not_yet_valid: 'the token is not valid yet',
  token_revoked: 'this token has been revoked',
  revocation_stale: 'it is not known at the moment which tokens have been revoked',
  key_set_unavailable: 'the key that the token names cannot be looked up at the moment',
  forbidden: 'the token does not give the right to this request',
  reauthentication_required: 'the user has to authenticate again, or by another method',
}

const statuses = { invalid_request: 400, forbidden: 403, revocation_stale: 503, key_set_unavailable: 503 }

export class VerifyError extends Error {
  constructor(code, detail = details[code], { cause, ...challenge } = {}) {
    super(`${code}: ${detail}`, cause === undefined ? undefined : { cause })
    this.name = 'VerifyError'
    this.code = code
    this.detail = detail
    this.status = statuses[code] ?? 401
    Object.assign(this, challenge) // reauthentication, scope
  }
}

/** detailed returns an error whose detail says what is required. */
export const detailed = (code, text, challenge) => new VerifyError(code, `${details[code]}: ${text}`, challenge)
