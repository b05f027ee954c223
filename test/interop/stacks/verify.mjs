// Verifies tokens with the libraries of package.json; stacks_test.go runs it, and says in
// stacks_test.go what it reads and prints. Each library gets what its own settings ask for:
// the issuer, the audience and the address of the key set, and algorithms where it wants
// them named.

import './node18.mjs'

import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

import { JwtVerifier } from 'aws-jwt-verify'
import { auth } from 'express-oauth2-jwt-bearer'
import fastJwt from 'fast-jwt'
import { Hono } from 'hono'
import { jwk } from 'hono/jwk'
import * as jose from 'jose'
import jsonwebtoken from 'jsonwebtoken'
import jwksRsa from 'jwks-rsa'
import * as oauth from 'oauth4webapi'

const input = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const { issuer, audience, algorithms } = input

// Each makes a verifier for the key set at an address: a function that throws what is wrong
// with a token.
const libraries = {
  jose: url => {
    const keys = jose.createRemoteJWKSet(new URL(url))
    return token => jose.jwtVerify(token, keys, { issuer, audience, typ: 'at+jwt' })
  },
  'jsonwebtoken, jwks-rsa': url => {
    const client = jwksRsa({ jwksUri: url })
    const find = (header, done) => client.getSigningKey(header.kid).then(key => done(null, key.getPublicKey()), done)
    return token =>
      new Promise((resolve, reject) =>
        jsonwebtoken.verify(token, find, { issuer, audience }, (err, claims) => (err ? reject(err) : resolve(claims))))
  },
  'aws-jwt-verify': url => {
    const verifier = JwtVerifier.create({ issuer, audience, jwksUri: url })
    return token => verifier.verify(token)
  },
  'fast-jwt': url =>
    fastJwt.createVerifier({
      // It fetches nothing: the application does, here once for each token.
      key: async ({ header }) => {
        const { keys } = await (await fetch(url)).json()
        const key = keys.find(({ kid }) => kid === header.kid)
        return createPublicKey({ key, format: 'jwk' }).export({ type: 'spki', format: 'pem' })
      },
      allowedIss: issuer,
      allowedAud: audience,
    }),
  'express-oauth2-jwt-bearer': url => {
    const middleware = auth({ issuer, audience, jwksUri: url })
    return token =>
      new Promise((resolve, reject) => {
        const headers = { host: 'api.example.com', authorization: `Bearer ${token}` }
        const request = { headers, get: name => headers[name.toLowerCase()], app: { get: () => undefined }, method: 'GET', query: {}, body: {}, is: () => false }
        middleware(request, {}, err => (err ? reject(err) : resolve(request.auth)))
      })
  },
  oauth4webapi: url => {
    const server = { issuer, jwks_uri: url }
    return token =>
      oauth.validateJwtAccessToken(
        server,
        new Request(audience, { headers: { authorization: `Bearer ${token}` } }),
        audience,
        { [oauth.allowInsecureRequests]: true, signingAlgorithms: algorithms })
  },
  hono: url => {
    const app = new Hono()
    let failure
    app.use(jwk({ jwks_uri: url, alg: algorithms, verification: { iss: issuer, aud: audience } }))
    app.onError((err, c) => ((failure = err.cause ?? err), c.text('', 401)))
    app.get('/', c => c.text(''))
    return async token => {
      const answer = await app.request('/', { headers: { authorization: `Bearer ${token}` } })
      if (answer.status !== 200) throw failure
    }
  },
}

const versionOf = name => {
  const at = createRequire(import.meta.url).resolve.paths(name)[0]
  return JSON.parse(readFileSync(`${at}/${name}/package.json`, 'utf8')).version
}

const attempt = async f => {
  try {
    await f()
    return ''
  } catch (err) {
    return `${err?.name ?? ''}: ${err?.message ?? err}`
  }
}

const baseOf = name => (name === 'aws-jwt-verify' ? input.secure : input.base) // it speaks nothing but HTTPS

const results = {}
for (const [name, library] of Object.entries(libraries)) { // first of all: it is not early for long
  results[name] = { early: await attempt(async () => library(`${baseOf(name)}/keys/ES256`)(input.early)) }
}
for (const [name, library] of Object.entries(libraries)) {
  const base = baseOf(name)
  const result = Object.assign(results[name], { version: name.split(', ').map(versionOf).join(', '), alone: {}, mixed: {} })
  for (const alg of algorithms) {
    result.alone[alg] = await attempt(async () => library(`${base}/keys/${alg}`)(input.tokens[alg]))
    result.mixed[alg] = await attempt(async () => library(`${base}/keys/mixed`)(input.tokens[alg]))
  }
  const rotating = encodeURIComponent(name.replaceAll(/\W/g, ''))
  const verify = library(`${base}/keys/rotating/${rotating}`)
  result.before = await attempt(() => verify(input.tokens.ES256))
  result.unknown = await attempt(() => verify(input.next)) // its key is not in the set
  await fetch(`${input.base}/rotate/${rotating}`)
  result.next = await attempt(() => verify(input.next))
  for (const what of ['late', 'tampered', 'foreign', 'elsewhere']) {
    result[what] = await attempt(async () => library(`${base}/keys/ES256`)(input[what]))
  }
}
console.log(JSON.stringify(results))
process.exit(0) // some keep timers
