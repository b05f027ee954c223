// A resource server with express, which tells clients where to get a token (RFC 9728):
//
//   node examples/express.mjs https://auth.example.com

import express from 'express'

import { any, claim, createVerifier, freshAuth, metadataPath } from '@watchword-auth/verify'
import { metadata, requireToken } from '@watchword-auth/verify/express'

const resource = process.env.RESOURCE ?? 'http://localhost:8000'
const verifier = createVerifier({ issuer: process.argv[2], resource })

const app = express()
app.get(metadataPath(resource), metadata(verifier))
app.get('/', requireToken(verifier), (req, res) => res.send(`welcome, ${req.token.subject}\n`))
app.get('/log', requireToken(verifier, any(claim('log', 'r'), claim('log', 'w'))), (req, res) => res.send('day 1: left port\n'))
app.get('/helm', requireToken(verifier, claim('ship', 'acc'), freshAuth(300)), (req, res) => res.send('aye\n'))
// News may be read even while it is not known who was logged out.
app.get('/news', requireToken(verifier, { onStale: 'accept' }), (req, res) => res.send('none\n'))
app.get('/health', (req, res) => res.status(verifier.status().fresh ? 200 : 503).json(verifier.status()))

const server = app.listen(Number(process.env.PORT ?? 8000), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
process.once('SIGTERM', async () => {
  server.close()
  server.closeIdleConnections()
  await verifier.close()
})
