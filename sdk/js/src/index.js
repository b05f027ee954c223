export { metadataPath } from './answers.js'
export { VerifyError } from './errors.js'
export { acr, all, amr, any, claim, freshAuth, scope, that } from './requirements.js'
export { createVerifier } from './verifier.js'
