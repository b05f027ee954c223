package revocation

import (
	"math"
	"time"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A Why says by what a token is known to be revoked.
type Why struct {
	Key     bool // everything that its key signed
	Epoch   bool // all of its user that was issued up to some moment, by the epoch
	Time    bool // the same, by the time at which it was issued
	Session bool
	Token   bool // it alone
}

// Any reports whether the token is revoked.
func (w Why) Any() bool { return w != Why{} }

// Why returns by what this replica knows that a token is revoked. It answers from memory.
func (v *View) Why(t *accesstoken.Token) Why {
	late := time.Unix(math.MaxInt64, 0)
	by := func(one accesstoken.Token) bool {
		_, revoked := v.list.Revoked(&one)
		return revoked
	}
	return Why{
		Key:     by(accesstoken.Token{KeyID: t.KeyID}),
		Epoch:   by(accesstoken.Token{Subject: t.Subject, Epoch: t.Epoch, IssuedAt: late}),
		Time:    by(accesstoken.Token{Subject: t.Subject, Epoch: math.MaxInt64, IssuedAt: t.IssuedAt}),
		Session: by(accesstoken.Token{SessionID: t.SessionID}),
		Token:   by(accesstoken.Token{ID: t.ID}),
	}
}
