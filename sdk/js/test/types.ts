// Uses everything that the package has, for the compiler alone: scripts "test" in package.json.

import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'

import {
  acr, all, amr, any, claim, createVerifier, freshAuth, metadataPath, scope, that, VerifyError,
  type Answer, type Code, type Condition, type Incoming, type Logger, type Moment, type OnStale, type Options, type Requirement, type RouteOptions, type Status, type Token, type Verifier,
} from '@watchword-auth/verify'
import * as forExpress from '@watchword-auth/verify/express'
import * as forFastify from '@watchword-auth/verify/fastify'
import * as forHono from '@watchword-auth/verify/hono'

const logger: Logger = console
const moment: Moment = { monotonic: 0, wall: 0 }
const onStale: OnStale = 'refuse'
const options: Options = {
  issuer: 'https://auth.example', audience: ['https://api.example'], resource: 'https://api.example', resourceName: 'Ships', scopesSupported: ['orders:read'],
  keySetUrl: 'https://auth.example/keys', secrets: [], revocationsUrl: 'https://auth.example/feed', withoutRevocations: false,
  maxStaleness: 10, onStale, cacheSize: 100, leeway: 1, fetch, clock: () => moment, logger,
}
const verifier: Verifier = createVerifier(options)
createVerifier({ issuer: 'https://auth.example', audience: 'https://api.example' })
// @ts-expect-error the issuer is required
createVerifier({})
// @ts-expect-error there is no such option
createVerifier({ issuer: 'https://auth.example', issuers: [] })
// @ts-expect-error nothing else is an answer to staleness
const wrong: OnStale = 'open'

const requirement: Requirement = all(claim('ship', 'acc'), any(scope('orders:read'), amr('otp', 'hwk')), acr('aal2'), freshAuth(300), that('a user of ours', token => token.subject !== ''))
const route: RouteOptions = { maxStaleness: 120, onStale: 'accept' }
const conditions: Condition[] = [requirement, route]
const text: string = requirement.text + String(requirement)

const token: Token = await verifier.verify('a.b.c', ...conditions)
const held: boolean = token.has('ship', 'acc')
const claims: Readonly<Record<string, unknown>> = token.claims
const texts: (string | undefined)[] = [token.keyId, token.issuer, token.subject, ...token.audience, token.id, token.sessionId, ...(token.amr ?? []), token.acr, ...(token.scope ?? [])]
const times: (number | undefined)[] = [token.epoch, token.expiresAt, token.issuedAt, token.notBefore, token.authTime]
// @ts-expect-error a token never changes
token.subject = 'root'

const request: Incoming = new Request('https://api.example')
try {
  await verifier.authorize(request, claim('ship', 'acc'))
  await verifier.authorize({ rawHeaders: ['Authorization', 'Bearer a.b.c'] }, route)
} catch (error) {
  const answer: Answer = verifier.refusal(error)
  if (error instanceof VerifyError) {
    const code: Code = error.code
    const maxAge: number | undefined = error.reauthentication?.maxAge
    const values: readonly (string | undefined)[] = [code, error.detail, ...(error.reauthentication?.acrValues ?? []), ...(error.scope ?? [])]
    console.log(answer.status, answer.headers, answer.body, error.status, maxAge, values)
  }
}
const { path, status, headers, body } = verifier.metadata()
const known: Status = verifier.status()
console.log(wrong, text, held, claims, texts, times, path, status, headers, body, known.keys, known.revocations, known.confirmed?.getTime(), known.confirmedAge, known.fresh, metadataPath('https://api.example'))

express()
  .get('/ship', forExpress.requireToken(verifier, claim('ship', 'acc'), route), (req, res) => { res.json(req.token?.claims) })
  .get(metadataPath('https://api.example'), forExpress.metadata(verifier))

const app = fastify()
app.get('/ship', { onRequest: forFastify.requireToken(verifier, ...conditions) }, async request => request.token?.claims)
app.get(path, forFastify.metadata(verifier))

new Hono()
  .get('/ship', forHono.requireToken(verifier, ...conditions), c => c.json({ subject: c.get('token').subject }))
  .get(path, forHono.metadata(verifier))

await verifier.close()
