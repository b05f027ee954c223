// Package factors has what second factors promise over several replicas and real backends: each
// code, challenge and token is spent exactly once, whichever replicas meet it, and whatever fails
// meanwhile.
package factors
