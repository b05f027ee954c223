import type { Condition, Token, Verifier } from './index.js'

declare global {
  namespace Express {
    interface Request {
      /** The token that requireToken has let through. */
      token?: Token
    }
  }
}

interface Response {
  readonly headersSent: boolean
  writeHead(status: number, headers: Record<string, string>): { end(body: string): unknown }
}

/**
 * Makes a middleware that lets a request through only with a good token that meets every condition;
 * req.token is the token.
 */
export function requireToken(verifier: Verifier, ...conditions: Condition[]):
  (req: { rawHeaders: string[]; token?: Token }, res: Response, next: (error?: unknown) => void) => void

/** Makes a handler that answers with the metadata of the verifier's resource (RFC 9728), for app.get(metadataPath(resource), …). */
export function metadata(verifier: Verifier): (req: unknown, res: Response) => void
