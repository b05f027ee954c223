// A resource server with hono on Node. On other runtimes `app` is all there is:
//
//   node examples/hono.mjs https://auth.example.com

import { serve } from '@hono/node-server'
import { Hono } from 'hono'

import { createVerifier, scope } from '@watchword-auth/verify'
import { requireToken } from '@watchword-auth/verify/hono'

const verifier = createVerifier({ issuer: process.argv[2] })

const app = new Hono()
app.get('/', requireToken(verifier, scope('orders:read')), c => c.text(`welcome, ${c.get('token').subject}\n`))

const server = serve({ fetch: app.fetch, hostname: '127.0.0.1', port: Number(process.env.PORT ?? 8000) }, ({ port }) => console.log(`http://127.0.0.1:${port}`))
process.once('SIGTERM', async () => {
  server.close()
  server.closeIdleConnections()
  await verifier.close()
})
