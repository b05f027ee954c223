// Resource servers for tests, by sdk/js: one for each issuer that is named. What each answers stands
// in package servers.

import { createServer } from 'node:http'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'

import { claim, createVerifier, VerifyError } from '../../../sdk/js/src/index.js'

const checkEvery = 5 // milliseconds: how often /refused checks its token

const { values: options } = parseArgs({
  options: {
    issuer: { type: 'string', multiple: true },
    audience: { type: 'string' },
    'max-staleness': { type: 'string' },
    listen: { type: 'string', default: '127.0.0.1:0' },
  },
})

const conditions = { 'GET /any': [], 'GET /ship': [claim('ship', 'acc')], 'GET /open': [{ onStale: 'accept' }] }

/** codeOf is that of a refused token, or empty. */
async function codeOf(verifier, token) {
  try {
    await verifier.verify(token)
    return ''
  } catch (error) {
    if (error instanceof VerifyError) return error.code
    throw error
  }
}

async function answer(verifier, request) {
  const route = `${request.method} ${request.url}`
  if (Object.hasOwn(conditions, route)) return (await verifier.authorize(request, ...conditions[route])).claims
  switch (route) {
    case 'GET /status': {
      const { keys, revocations, confirmedAge, fresh } = verifier.status()
      return { keys, revocations, confirmed_age_ms: confirmedAge === null ? null : Math.round(confirmedAge * 1000), fresh }
    }
    case 'POST /tokens': {
      const codes = []
      for (const token of (await text(request)).split('\n')) codes.push(await codeOf(verifier, token))
      return codes
    }
    case 'GET /refused':
      for (const token = request.headers.authorization.slice('Bearer '.length); !request.destroyed; await pause(checkEvery)) {
        const code = await codeOf(verifier, token)
        if (code && code !== 'revocation_stale') return code
      }
  }
  throw new Error(`no answer to ${route}`)
}

const verifiers = []
const servers = []
for (const issuer of options.issuer) {
  const maxStaleness = options['max-staleness'] && Number(options['max-staleness'])
  const verifier = createVerifier({ issuer, ...(options.audience && { audience: options.audience }), ...(maxStaleness && { maxStaleness }) })
  const server = createServer(async (request, response) => {
    try {
      const body = JSON.stringify(await answer(verifier, request))
      response.writeHead(200, { 'Content-Type': 'application/json' }).end(body)
    } catch (error) {
      const { status, headers, body } = verifier.refusal(error)
      response.writeHead(status, headers).end(body)
    }
  })
  verifiers.push(verifier)
  servers.push(server)
  const [, host, port] = /^(.*):(\d+)$/.exec(options.listen)
  await new Promise(listening => server.listen(Number(port), host, listening))
  const { address, port: chosen } = server.address()
  console.log(`listening on ${address}:${chosen}`)
}

process.once('SIGTERM', async () => {
  for (const server of servers) {
    server.close()
    server.closeAllConnections()
  }
  await Promise.all(verifiers.map(verifier => verifier.close()))
  // Now nothing is left to be waited for, and the process ends by itself.
})
