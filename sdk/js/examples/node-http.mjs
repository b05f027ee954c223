// A resource server with nothing but node:http:
//
//   node examples/node-http.mjs https://auth.example.com

import http from 'node:http'

import { claim, createVerifier } from '@watchword-auth/verify'

const verifier = createVerifier({ issuer: process.argv[2] })
const dock = claim('ship', 'acc')

const server = http.createServer(async (req, res) => {
  try {
    const token = await verifier.authorize(req, dock)
    res.writeHead(200, { 'Content-Type': 'text/plain' }).end(`welcome, ${token.subject}\n`)
  } catch (error) {
    const { status, headers, body } = verifier.refusal(error) // throws what is no refusal
    res.writeHead(status, headers).end(body)
  }
})

server.listen(Number(process.env.PORT ?? 8000), '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`))
process.once('SIGTERM', async () => {
  server.close()
  server.closeIdleConnections()
  await verifier.close()
})
