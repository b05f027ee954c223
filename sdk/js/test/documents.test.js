// What is said of the package, in its types and its README, is so.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import test from 'node:test'

import { details } from '../src/errors.js'
import { createVerifier } from '../src/index.js'
import { Issuer } from './issuer.js'

const read = name => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8')
const all = (text, pattern) => [...text.matchAll(pattern)].map(([, name]) => name)
const readme = read('README.md')
const types = read('src/index.d.ts')
const options = all(/export interface Options \{(.*?)\n\}/s.exec(types)[1], /^ {2}(\w+)\??:/gm)
const codes = all(/export type Code =(.*?)\n\n/s.exec(types)[1], /'(\w+)'/g)

test('the types have each export, and no other', async () => {
  for (const name of ['index', 'express', 'fastify', 'hono']) {
    const exports = Object.keys(await import(`../src/${name}.js`))
    assert.deepEqual(all(read(`src/${name}.d.ts`), /^export (?:class|function) (\w+)/gm).sort(), exports.sort(), name)
  }
  assert.deepEqual(codes.sort(), Object.keys(details).sort())
})

test('the types and the README have each option and each code', () => {
  const taken = all(/const names = new Set\(\[(.*?)\]\)/s.exec(read('src/verifier.js'))[1], /'(\w+)'/g)
  assert.deepEqual(options.toSorted(), taken.toSorted())
  for (const name of options) assert.throws(() => createVerifier({ [name]: {} }), error => !error.message.startsWith('there is no option'))
  for (const name of [...options, ...codes]) assert(readme.includes(`\`${name}\``), name)
})

test('the programs of the README run', { timeout: 60_000 }, async t => {
  const issuer = await Issuer.start(t)
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  await new Promise(resolve => server.close(resolve))
  const [program, requirements, metadata, ...more] = all(readme, /```js\n(.*?)```/gs)
  assert.equal(more.length, 0)
  // The second and the third are parts of programs, and go on with what the first one has.
  const whole = `
    import { acr, any, freshAuth, metadataPath, scope, that } from '@watchword-auth/verify'
    import { metadata } from '@watchword-auth/verify/express'
    ${program.replace('8000', `${port}, '127.0.0.1', () => console.log('listening')`)}
    ${requirements}
    { const app = express(); ${metadata} }`.replaceAll('https://auth.example.com', issuer.url)
  const child = spawn(process.execPath, ['--input-type=module', '--eval', whole], { cwd: new URL('..', import.meta.url), stdio: ['ignore', 'pipe', 'inherit'] })
  t.after(() => child.kill('SIGKILL'))
  await Promise.race([once(child.stdout, 'data'), once(child, 'exit').then(() => assert.fail('it ended'))])
  const status = async token => {
    for (;;) {
      const { status } = await fetch(`http://127.0.0.1:${port}/ship`, token && { headers: { Authorization: `Bearer ${token}` } })
      if (status !== 503) return status // then it has not read the feed yet
    }
  }
  assert.deepEqual([await status(), await status(await issuer.token()), await status(await issuer.token({ ship: 'acc' }))], [401, 403, 200])
})
