// Package verify is for resource servers: it checks Watchword's access tokens
// without a call for each, keeps the merged key set fresh, follows the feed of
// revocations, and guards net/http handlers; package grpcverify guards gRPC.
//
//	verifier, err := verify.New(verify.Config{Issuer: "https://auth.example.com"})
//	…
//	defer verifier.Close()
//	mux.Handle("POST /dock", verifier.Require(dock, verify.Claim("ship", "acc")))
//
// A Verifier accepts a token if its signature is that of a key in the key set, if its
// issuer, audience and times are right, and if it is known, as of a moment at most
// MaxStaleness ago, that the token has not been revoked. A token about which that is not
// known is refused, unless the Config or a route says FailOpen.
//
// docs/protocol.md is the contract that it keeps, as do the verifiers of sdk/js and sdk/python.
//
// A route may also require how, and how long ago, the user authenticated. A client whose token
// lacks only that gets 401 with error="insufficient_user_authentication" (RFC 9470), has its
// user authenticate again (POST /api/login/step-up), and comes back with a new token:
//
//	mux.Handle("POST /transfer", verifier.Require(transfer,
//		verify.Claim("pay", "own"), verify.FreshAuth(5*time.Minute), verify.AMR("otp", "hwk")))
//
// A client that knows the resource server alone can find out which issuer it needs (RFC 9728), if
// Config.Resource says where clients reach it. Every challenge then has resource_metadata:
//
//	const resource = "https://ships.example/api" // also one of Config.Audience
//	mux.Handle("GET "+verify.MetadataPath(resource), verifier.Metadata())
//
// Claims say what a user may do; scopes say what a client may do for the user. A client whose
// token lacks nothing but scopes gets 403 with error="insufficient_scope" and the scopes that the
// request needs (RFC 6750 §3):
//
//	mux.Handle("GET /orders", verifier.Require(orders, verify.Scope("orders:read")))
//
// A deployment may sign with a secret that its replicas share (HS256) instead of private keys.
// It then publishes no key, and a resource server needs the secret itself: see Config.Secrets,
// and what that means.
//
// It imports the standard library and golang-jwt, and nothing of internal/.
package verify
