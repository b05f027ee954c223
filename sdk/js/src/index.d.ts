/** Why a token was refused, or cannot be judged. The codes are stable. */
export type Code =
  | 'token_missing' | 'invalid_request' | 'token_malformed' | 'token_type' | 'token_algorithm' | 'token_key_unknown' | 'token_signature'
  | 'token_claim_missing' | 'token_issuer' | 'token_audience' | 'token_expired' | 'token_not_yet_valid' | 'token_revoked'
  | 'revocation_stale' | 'key_set_unavailable' | 'forbidden' | 'reauthentication_required'

/** What verify and authorize throw. Neither code nor detail ever contains the token. */
export class VerifyError extends Error {
  private constructor()
  readonly name: 'VerifyError'
  readonly code: Code
  /** One sentence for people. */
  readonly detail: string
  /** The HTTP status of the answer: 400, 401, 403 or 503. */
  readonly status: number
  /** With the code reauthentication_required: how the user has to authenticate (RFC 9470 §3). maxAge is in seconds. */
  readonly reauthentication?: { readonly maxAge?: number; readonly acrValues?: readonly string[] }
  /** All scopes that the request needs, if the token lacks one of them and nothing else but an authentication. */
  readonly scope?: readonly string[]
}

/** An access token that was accepted. It never changes. Times are seconds since 1970 and may have a fraction. */
export interface Token {
  /** kid: which key signed it. */
  readonly keyId: string
  /** iss */
  readonly issuer: string
  /** sub: the id of its user. */
  readonly subject: string
  /** aud */
  readonly audience: readonly string[]
  /** jti */
  readonly id: string
  /** sid; undefined if it belongs to no session. */
  readonly sessionId: string | undefined
  /** epoch: how often everything of the user had been revoked; 0 when absent. */
  readonly epoch: number
  /** exp */
  readonly expiresAt: number
  /** iat_exact, or iat, which an issuer may date back. */
  readonly issuedAt: number
  /** nbf */
  readonly notBefore: number | undefined
  /** auth_time: when the user authenticated last (RFC 9068 §2.2.1). */
  readonly authTime: number | undefined
  /** amr: the methods by which the user authenticated (RFC 8176). */
  readonly amr: readonly string[] | undefined
  /** acr: how strong that was. */
  readonly acr: string | undefined
  /** scope: what the token is good for (RFC 8693 §4.2). */
  readonly scope: readonly string[] | undefined
  /** All members of the payload. A number beyond 2^53 loses its last digits. */
  readonly claims: Readonly<Record<string, unknown>>
  /** Reports whether the claim of that name holds the value: several values are one string, joined with commas. */
  has(name: string, value: string): boolean
}

/** A condition that a token must meet. */
export interface Requirement {
  /** What is required, such as "ship=acc and (log=r or log=w)". It is part of the answer to a request that is refused. */
  readonly text: string
  toString(): string
}

/** Requires that the token holds the value under the name. A value such as "r,w" requires all that it lists. */
export function claim(name: string, value: string): Requirement
/** Requires that the token has all of the scopes. No token meets scope of none. */
export function scope(...names: string[]): Requirement
/** Requires at least one of the requirements. No token meets any of none. */
export function any(...of: Requirement[]): Requirement
/** Requires every one of the requirements. */
export function all(...of: Requirement[]): Requirement
/** Requires that the user has authenticated no longer ago than that many seconds, by the token's auth_time. Renewing a token is no authentication. */
export function freshAuth(seconds: number): Requirement
/** Requires that the user has authenticated by at least one of the methods, such as "otp" or "hwk" (RFC 8176). */
export function amr(...methods: string[]): Requirement
/** Requires that the token's acr is one of the values, the preferred one first. */
export function acr(...values: string[]): Requirement
/** Makes a requirement from a function, which returns true for a token that meets it. The text says what is required. */
export function that(text: string, is: (token: Token) => boolean): Requirement

/** What is answered about a good token while it is not known whether it was revoked: 503, or the token is accepted. */
export type OnStale = 'refuse' | 'accept'

/** Replaces the verifier's options for one route. */
export interface RouteOptions {
  /** In seconds. Much below 3, tokens are refused now and then although nothing is broken. */
  maxStaleness?: number
  /** "accept" accepts nothing while the feed has never been read. */
  onStale?: OnStale
}

/** Requirements add up; a later option replaces an earlier one. */
export type Condition = Requirement | RouteOptions

/** A moment of both clocks of a machine, in milliseconds; wall counts from 1970. */
export interface Moment {
  monotonic: number
  wall: number
}

export interface Logger {
  info(message: string, fields?: object): void
  warn(message: string, fields?: object): void
  error(message: string, fields?: object): void
}

export interface Options {
  /** What the tokens' iss must be, exactly: the public URL of the Watchword cluster. */
  issuer: string
  /** Those of which a token's aud must name one; by default the issuer. */
  audience?: string | readonly string[]
  /** The URL under which clients reach this service (RFC 9728 §1.2). With it there are metadata, and every challenge says where. It should be one of the audience. */
  resource?: string
  /** The resource's name for people, for the metadata. */
  resourceName?: string
  /** Scopes that requests to the resource need, for the metadata. */
  scopesSupported?: readonly string[]
  /** Where the public keys are; by default issuer/.well-known/jwks.json. Who can change its answers can pass as any user, so use https. */
  keySetUrl?: string
  /** Shared secrets (HS256, HS384, HS512), of at least 32, 48 or 64 bytes. Who has one can issue tokens as any user: prefer public keys. */
  secrets?: readonly string[]
  /** Where the feed of revocations is; by default issuer/api/revocations. */
  revocationsUrl?: string
  /** Accepts tokens until they expire, even if they were revoked. */
  withoutRevocations?: boolean
  /** In seconds, by default 10, at least 3. When there was no confirmation for that long that all revocations are known, onStale says what to do. */
  maxStaleness?: number
  /** By default "refuse". */
  onStale?: OnStale
  /** How many verified tokens are remembered; by default 4096. A token takes some 3 KB. */
  cacheSize?: number
  /** By how many seconds clocks may differ: exp and nbf are judged that much in the token's favour. From 0, the default, to 300. */
  leeway?: number
  /** Fetches the keys and the feed, in place of the global fetch. It must have no timeout of its own: the feed is one long answer. */
  fetch?: typeof globalThis.fetch
  /** The clock, for tests. */
  clock?: () => Moment
  /** Gets a line when the keys or the feed go out of reach, once for each outage. By default console. */
  logger?: Logger
}

/** What a verifier knows, for a health page. */
export interface Status {
  /** Public keys; those of secrets are not counted. */
  keys: number
  /** Entries of the feed that are kept. */
  revocations: number
  /** When it last knew all revocations, by this machine's clock; null: never. */
  confirmed: Date | null
  /** How long ago that was, in seconds. */
  confirmedAge: number | null
  /** Whether that is within maxStaleness, or there is withoutRevocations. */
  fresh: boolean
}

/** An answer to a request. */
export interface Answer {
  status: number
  headers: Record<string, string>
  body: string
}

/** A request of Node's http or http2, or of the Fetch Standard. */
export type Incoming = { rawHeaders: string[] } | { headers: { get(name: string): string | null } }

/** Checks access tokens in memory. In the background it keeps the key set fresh and follows the feed of revocations. */
export interface Verifier {
  /**
   * Accepts a token and returns it, or throws a VerifyError. It waits for the network in two cases: until
   * the first key set and the first page of the feed are there, and for a key that is not known yet.
   */
  verify(token: string, ...conditions: Condition[]): Promise<Token>
  /** Verifies the token in a request's Authorization header (RFC 6750 §2.1). */
  authorize(request: Incoming, ...conditions: Condition[]): Promise<Token>
  /** Returns the answer to a request for which authorize has thrown a VerifyError: problem details (RFC 9457) with a challenge. Any other error is thrown again. */
  refusal(error: unknown): Answer
  /** Returns the metadata of the resource (RFC 9728) as an answer, and the path where it is to be served. Throws without a resource. */
  metadata(): Answer & { path: string }
  status(): Status
  /** Ends what runs in the background, and returns when it has ended. */
  close(): Promise<void>
}

/** Makes a verifier and starts it. The server need not be reachable yet. Throws a TypeError if an option is wrong. */
export function createVerifier(options: Options): Verifier

/** Returns the path at which clients look for the metadata of a resource (RFC 9728 §3.1). */
export function metadataPath(resource: string): string
