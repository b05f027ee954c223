// What the libraries take for granted and the Node.js 18 of Debian 12 does not have yet. It is
// imported before them.

import { webcrypto } from 'node:crypto'
import Module from 'node:module'

import * as jose from 'jose'

globalThis.crypto ??= webcrypto
globalThis.SubtleCrypto ??= webcrypto.subtle.constructor

// jwks-rsa requires jose, which is an ECMAScript module.
if (!process.features.require_module) {
  const load = Module._load
  Module._load = (request, ...more) => (request === 'jose' ? jose : load(request, ...more))
}
