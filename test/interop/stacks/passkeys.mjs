// Judges the ceremonies of passkeys with @simplewebauthn/server; passkeys_test.go runs it,
// and says what it reads and prints.

import './node18.mjs'

import { readFileSync } from 'node:fs'

import {
  generateAuthenticationOptions,
  generateRegistrationOptions,
  verifyAuthenticationResponse,
  verifyRegistrationResponse,
} from '@simplewebauthn/server'
import { isoBase64URL } from '@simplewebauthn/server/helpers'

const { origin, rpID, cases } = JSON.parse(readFileSync(process.argv[2], 'utf8'))

// differences names the members that the library would have written otherwise.
function differences(ours, theirs, path = '') {
  return Object.entries(ours).flatMap(([name, value]) => {
    const at = path + name
    if (at === 'challenge' || at === 'timeout') return typeof value === typeof theirs[name] ? [] : [at]
    const other = theirs[name]
    if (value && other && typeof value === 'object' && typeof other === 'object') return differences(value, other, at + '.')
    return value === other ? [] : [`${at}: ${JSON.stringify(value)}, not ${JSON.stringify(other)}`]
  })
}

async function register({ options: { publicKey }, response }) {
  const theirs = await generateRegistrationOptions({
    rpName: publicKey.rp.name,
    rpID,
    userName: publicKey.user.name,
    userID: isoBase64URL.toBuffer(publicKey.user.id),
    userDisplayName: publicKey.user.displayName,
    attestationType: 'none',
    excludeCredentials: publicKey.excludeCredentials,
    authenticatorSelection: { residentKey: 'preferred', userVerification: 'preferred' },
    supportedAlgorithmIDs: [-8, -7, -257],
  })
  const different = differences(publicKey, theirs)
  const { verified, registrationInfo } = await verifyRegistrationResponse({
    response,
    expectedChallenge: publicKey.challenge,
    expectedOrigin: origin,
    expectedRPID: rpID,
    requireUserVerification: false,
  })
  if (!verified) throw new Error('not verified')
  return { different, credential: registrationInfo.credential, synced: registrationInfo.credentialDeviceType === 'multiDevice' }
}

async function login({ options: { publicKey }, response, registration, counter }) {
  const theirs = await generateAuthenticationOptions({
    rpID,
    allowCredentials: publicKey.allowCredentials,
    userVerification: publicKey.userVerification,
  })
  const different = differences(publicKey, theirs)
  const { credential, synced } = await register(registration)
  const { verified, authenticationInfo } = await verifyAuthenticationResponse({
    response,
    expectedChallenge: publicKey.challenge,
    expectedOrigin: origin,
    expectedRPID: rpID,
    credential: { ...credential, counter },
    requireUserVerification: publicKey.userVerification === 'required',
  })
  if (!verified) throw new Error('not verified')
  return { different, counter: authenticationInfo.newCounter, verified: authenticationInfo.userVerified, synced }
}

const results = []
for (const c of cases) {
  try {
    const { different, counter = 0, verified = false, synced } = await (c.registration ? login(c) : register(c))
    results.push({ name: c.name, accepted: true, different, counter, verified, synced })
  } catch (err) {
    results.push({ name: c.name, accepted: false, why: String(err.message) })
  }
}
console.log(JSON.stringify(results))
