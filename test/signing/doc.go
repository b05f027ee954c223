// Package signing has what a cluster promises while what it signs with changes: no replica and no
// resource server refuses a token that was issued by any replica and has not expired.
package signing
