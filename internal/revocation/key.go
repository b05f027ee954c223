package revocation

import "github.com/watchword-auth/watchword/verify/accesstoken"

// KeyRevoked reports whether a key is known to be revoked. It is for tokens whose key is
// in no key set any more, so that nothing else about them can be checked.
func (v *View) KeyRevoked(kid string) bool {
	_, ok := v.list.Revoked(&accesstoken.Token{KeyID: kid})
	return ok
}
