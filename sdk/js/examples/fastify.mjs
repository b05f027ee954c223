// A resource server with fastify:
//
//   node examples/fastify.mjs https://auth.example.com

import fastify from 'fastify'

import { claim, createVerifier } from '@watchword-auth/verify'
import { requireToken } from '@watchword-auth/verify/fastify'

const verifier = createVerifier({ issuer: process.argv[2] })

const app = fastify()
app.addHook('onClose', () => verifier.close())
app.get('/', { onRequest: requireToken(verifier, claim('ship', 'acc')) }, async request => ({ welcome: request.token.subject }))

console.log(await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 8000) }))
process.once('SIGTERM', () => app.close())
