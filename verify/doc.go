// Package verify is for resource servers: it checks Watchword's access tokens
// without a call for each, keeps the merged key set fresh, follows the feed of
// revocations, and guards net/http handlers.
//
// It imports the standard library and golang-jwt, and nothing of internal/.
package verify
