// The settings of docs/resource-servers.md, which shows parts of this file; settings_test.go runs it
// and says what it reads and prints. Each library verifies tokens of ES256 as RFC 9068 wants it.

import './node18.mjs'

import { readFileSync } from 'node:fs'

import { JwtVerifier } from 'aws-jwt-verify'
import { auth } from 'express-oauth2-jwt-bearer'
import { createVerifier } from 'fast-jwt'
import * as jose from 'jose'
import jsonwebtoken from 'jsonwebtoken'
import jwksClient from 'jwks-rsa'
import * as oauth from 'oauth4webapi'

const { issuer, audience, plain, secure, tokens } = JSON.parse(readFileSync(process.argv[2], 'utf8'))
let keySetURL = plain

// Each makes a function that throws what is wrong with a token.
const libraries = {
  jose: () => {
    const keys = jose.createRemoteJWKSet(new URL(keySetURL))
    const options = { issuer, audience, algorithms: ['ES256'], typ: 'at+jwt', clockTolerance: 5, requiredClaims: ['exp', 'sub'] }
    return async token => {
      const { payload } = await jose.jwtVerify(token, keys, options)
      return payload
    }
  },
  'jsonwebtoken, jwks-rsa': () => {
    const keys = jwksClient({ jwksUri: keySetURL, cacheMaxAge: 600_000, rateLimit: true })
    const find = (header, done) => keys.getSigningKey(header.kid).then(key => done(null, key.getPublicKey()), done)
    const options = { issuer, audience, algorithms: ['ES256'], clockTolerance: 5, complete: true }
    return token => new Promise((resolve, reject) =>
      jsonwebtoken.verify(token, find, options, (err, verified) => {
        if (err || verified.header.typ !== 'at+jwt') return reject(err ?? new Error('no access token'))
        resolve(verified.payload)
      }))
  },
  'aws-jwt-verify': () => {
    keySetURL = secure // it speaks nothing but HTTPS
    const verifier = JwtVerifier.create({
      issuer, audience, jwksUri: keySetURL, graceSeconds: 5,
      customJwtCheck: ({ header }) => {
        if (header.typ !== 'at+jwt') throw new Error('no access token')
      },
    })
    return token => verifier.verify(token)
  },
  'fast-jwt': () => {
    const keys = jwksClient({ jwksUri: keySetURL, cacheMaxAge: 600_000, rateLimit: true })
    return createVerifier({
      key: async ({ header }) => (await keys.getSigningKey(header.kid)).getPublicKey(),
      allowedIss: issuer, allowedAud: audience, algorithms: ['ES256'], checkTyp: 'at+jwt', requiredClaims: ['exp', 'sub'],
      clockTolerance: 5000, // milliseconds
    })
  },
  'express-oauth2-jwt-bearer': () => {
    const middleware = auth({ issuer, audience, jwksUri: keySetURL, tokenSigningAlg: 'ES256', clockTolerance: 5, strict: true })
    return token =>
      new Promise((resolve, reject) => {
        const headers = { host: 'api.example.com', authorization: `Bearer ${token}` }
        const request = { headers, get: name => headers[name.toLowerCase()], app: { get: () => undefined }, method: 'GET', query: {}, body: {}, is: () => false }
        middleware(request, {}, err => (err ? reject(err) : resolve(request.auth)))
      })
  },
  oauth4webapi: () => {
    const server = { issuer, jwks_uri: keySetURL }
    const options = { signingAlgorithms: ['ES256'], [oauth.clockTolerance]: 5 }
    options[oauth.allowInsecureRequests] = true // in the test alone: it speaks nothing but HTTPS by itself
    return async token => {
      const request = new Request('https://api.example.com/', { headers: { authorization: `Bearer ${token}` } })
      return await oauth.validateJwtAccessToken(server, request, audience, options)
    }
  },
}

const results = {}
for (const [name, library] of Object.entries(libraries)) {
  keySetURL = plain
  const verify = library()
  results[name] = {}
  for (const [what, token] of Object.entries(tokens)) {
    try {
      await verify(token)
      results[name][what] = ''
    } catch (err) {
      results[name][what] = `${err?.name ?? ''}: ${err?.message ?? err}`
    }
  }
}
console.log(JSON.stringify(results))
process.exit(0) // some keep timers
