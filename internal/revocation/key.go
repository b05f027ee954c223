package revocation

import "github.com/watchword-auth/watchword/verify/accesstoken"

// KeyRevoked says whether a key is known to be taken back. It is for tokens whose
// key is in no set any more, so that nothing else of them can be checked.
func (v *View) KeyRevoked(kid string) bool {
	_, ok := v.list.Revoked(&accesstoken.Token{KeyID: kid})
	return ok
}
