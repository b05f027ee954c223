// Each of examples/ is run, is asked, and ends by itself when it is told to.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import test from 'node:test'

import { Issuer } from './issuer.js'

const directory = new URL('../examples/', import.meta.url)

for (const name of readdirSync(directory).filter(name => name.endsWith('.mjs'))) {
  test(`examples/${name}`, { timeout: 60_000 }, async t => {
    const issuer = await Issuer.start(t)
    const child = spawn(process.execPath, [new URL(name, directory).pathname, issuer.url], { env: { ...process.env, PORT: '0' }, stdio: ['ignore', 'pipe', 'inherit'] })
    t.after(() => child.kill('SIGKILL'))
    const [url] = await once(createInterface(child.stdout), 'line')
    const get = async token => (await fetch(url, token && { headers: { Authorization: `Bearer ${token}` } })).status
    assert.equal(await get(), 401)
    assert.equal(await get(await issuer.token({ ship: 'acc', scope: 'orders:read' })), 200)
    child.kill('SIGTERM')
    assert.deepEqual(await once(child, 'exit'), [0, null])
  })
}
