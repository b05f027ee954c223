// Package keepers has what whole replicas do whose private keys are in an HSM or at a remote
// signer, which may go away and come back.
package keepers
