// The same requests to node:http, express, fastify and hono, which have to be answered alike.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import http from 'node:http'
import test from 'node:test'

import { serve as serveHono } from '@hono/node-server'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'

import { acr, claim, createVerifier, freshAuth, metadataPath, scope, that } from '../src/index.js'
import * as forExpress from '../src/express.js'
import * as forFastify from '../src/fastify.js'
import * as forHono from '../src/hono.js'
import { Issuer, serve, silent } from './issuer.js'

const resource = 'http://localhost:8000/api'

const routes = {
  '/any': [],
  '/ship': [claim('ship', 'acc')],
  '/orders': [scope('orders:read', 'orders:write')],
  '/pay': [freshAuth(300), acr('aal2')],
  '/broken': [that('a function that throws', () => { throw new Error('broken') })],
}

const frameworks = {
  async 'node:http'(t, verifier) {
    return serve(t, async (req, res) => {
      if (req.url === metadataPath(resource)) {
        const { status, headers, body } = verifier.metadata()
        return res.writeHead(status, headers).end(body)
      }
      try {
        const token = await verifier.authorize(req, ...routes[req.url])
        res.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ sub: token.subject }))
      } catch (error) {
        if (error.message === 'broken') return res.writeHead(500).end()
        const { status, headers, body } = verifier.refusal(error)
        res.writeHead(status, headers).end(body)
      }
    })
  },
  async express(t, verifier) {
    const app = express()
    for (const [path, conditions] of Object.entries(routes)) {
      app.get(path, forExpress.requireToken(verifier, ...conditions), (req, res) => res.json({ sub: req.token.subject }))
    }
    app.get(metadataPath(resource), forExpress.metadata(verifier))
    app.use((error, req, res, next) => res.status(500).end())
    return serve(t, app)
  },
  async fastify(t, verifier) {
    const app = fastify()
    for (const [path, conditions] of Object.entries(routes)) {
      app.get(path, { onRequest: forFastify.requireToken(verifier, ...conditions) }, async request => ({ sub: request.token.subject }))
    }
    app.get(metadataPath(resource), forFastify.metadata(verifier))
    t.after(() => app.close())
    return app.listen({ host: '127.0.0.1', port: 0 })
  },
  async hono(t, verifier) {
    const server = serveHono({ fetch: honoApp(verifier).fetch, hostname: '127.0.0.1', port: 0 })
    await once(server, 'listening')
    t.after(() => server.close())
    return `http://127.0.0.1:${server.address().port}`
  },
}

function honoApp(verifier) {
  const app = new Hono()
  for (const [path, conditions] of Object.entries(routes)) {
    app.get(path, forHono.requireToken(verifier, ...conditions), c => c.json({ sub: c.get('token').subject }))
  }
  app.get(metadataPath(resource), forHono.metadata(verifier))
  app.onError((error, c) => c.body(null, 500))
  return app
}

/** get sends the Authorization headers as they are, several of them as well. */
async function get(url, ...authorization) {
  const req = http.get(url, { headers: { Authorization: authorization }, agent: false })
  const [res] = await once(req, 'response')
  let body = ''
  for await (const part of res) body += part
  return { status: res.statusCode, headers: res.headers, body }
}

const challenge = (url, ...more) =>
  ['Bearer realm="' + url + '"', ...more, `resource_metadata="http://localhost:8000${metadataPath(resource)}"`].join(', ')

for (const [name, start] of Object.entries(frameworks)) {
  test(`${name} answers as every other`, async t => {
    const issuer = await Issuer.start(t)
    const verifier = createVerifier({ issuer: issuer.url, resource, resourceName: 'Ships', scopesSupported: ['orders:read'], logger: silent() })
    t.after(() => verifier.close())
    const at = await start(t, verifier)
    const good = `Bearer ${await issuer.token({ ship: 'acc', scope: 'orders:read' })}`
    const strong = `Bearer ${await issuer.token({ auth_time: Math.floor(Date.now() / 1000), acr: 'aal2' })}`
    const revoked = `Bearer ${await issuer.token({ jti: 'revoked' })}`
    const invalid = code => `error="invalid_token", error_description="${code}"`

    const check = async (path, authorization, status, code, ...more) => {
      const res = await get(at + path, ...authorization)
      assert.equal(res.status, status, `${path} ${res.body}`)
      if (status === 200) return assert.deepEqual(JSON.parse(res.body), { sub: 'user-1' })
      assert.equal(res.headers['content-type'], 'application/problem+json')
      assert.equal(res.headers['cache-control'], 'no-store')
      assert.equal(res.headers['www-authenticate'], status === 503 ? undefined : challenge(issuer.url, ...more))
      assert.equal(res.headers['retry-after'], status === 503 ? '1' : undefined)
      const problem = JSON.parse(res.body)
      assert.deepEqual(Object.keys(problem), ['type', 'title', 'status', 'detail', 'code'])
      assert.equal(problem.code, code)
      assert.equal(problem.status, status)
    }
    await check('/any', [good], 200)
    await check('/ship', [good], 200)
    await check('/pay', [strong], 200)
    await check('/any', [], 401, 'token_missing')
    await check('/any', ['Basic dTpw'], 401, 'token_missing')
    await check('/any', ['Bearer x'], 401, 'token_malformed', invalid('token_malformed'))
    await check('/any', [good, good], 400, 'invalid_request', 'error="invalid_request"', 'error_description="invalid_request"')
    await check('/any', ['Basic dTpw', good], 400, 'invalid_request', 'error="invalid_request"', 'error_description="invalid_request"')
    await check('/ship', [strong], 403, 'forbidden', 'error="insufficient_scope"', 'error_description="forbidden"')
    await check('/orders', [good], 403, 'forbidden', 'error="insufficient_scope"', 'error_description="forbidden"', 'scope="orders:read orders:write"')
    await check('/pay', [good], 401, 'reauthentication_required',
      'error="insufficient_user_authentication"', 'error_description="reauthentication_required"', 'max_age="300"', 'acr_values="aal2"')
    assert.equal((await get(`${at}/broken`, good)).status, 500, 'an error that is no refusal is the application\'s')

    issuer.revoke('jti', 'revoked')
    while (!verifier.status().revocations) await new Promise(resolve => setTimeout(resolve, 5))
    await check('/any', [revoked], 401, 'token_revoked', invalid('token_revoked'))

    const { status, headers, body } = await get(at + metadataPath(resource))
    assert.equal(status, 200)
    assert.equal(headers['content-type'], 'application/json')
    assert.equal(headers['cache-control'], 'public, max-age=300')
    assert.deepEqual(JSON.parse(body), {
      resource, authorization_servers: [issuer.url], scopes_supported: ['orders:read'], bearer_methods_supported: ['header'], resource_name: 'Ships',
    })
  })
}

test('hono without Node has the headers that the Fetch Standard joins', async t => {
  const issuer = await Issuer.start(t)
  const verifier = createVerifier({ issuer: issuer.url, resource, logger: silent() })
  t.after(() => verifier.close())
  const app = honoApp(verifier)
  const good = `Bearer ${await issuer.token()}`
  const status = async (...authorization) => {
    const headers = new Headers()
    for (const one of authorization) headers.append('Authorization', one)
    return (await app.request('/any', { headers })).status
  }
  assert.equal(await status(good), 200)
  assert.equal(await status(), 401)
  assert.equal(await status(good, good), 400)
  assert.equal(await status('Basic dTpw', good), 400)
  assert.equal(await status(good, 'Basic dTpw'), 401)
})

test('a server that cannot be reached is answered with 503', async t => {
  const verifier = createVerifier({ issuer: 'http://127.0.0.1:1', resource, logger: silent() })
  t.after(() => verifier.close())
  const issuer = await Issuer.start(t)
  const at = await frameworks.express(t, verifier)
  const { status, headers, body } = await get(`${at}/any`, `Bearer ${await issuer.token()}`)
  assert.equal(status, 503)
  assert.equal(headers['retry-after'], '1')
  assert.equal(headers['www-authenticate'], undefined)
  assert.equal(JSON.parse(body).code, 'key_set_unavailable')
})
