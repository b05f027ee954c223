package directory

import (
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var (
	// ErrWrongAudience: the actor's token is for a service, which could have kept it.
	ErrWrongAudience = problem.New(problem.Unauthenticated, "wrong_audience",
		`this token is for other services; log in, or renew, with the issuer as "audience" to get one for this API`)
	// ErrReauthenticate: the actor may do it, but logged in longer ago than
	// Config.FreshFor. Its MaxAge is that.
	ErrReauthenticate = problem.New(problem.Unauthenticated, "reauthentication_required",
		"you logged in too long ago to change this; log in again and use the new token, a renewal does not help")
)

// An Actor is in whose name something is done: the holder of an access token, or System.
// Its rights are read from the store in the transaction that needs them, and not from the
// token. The zero Actor may do nothing.
type Actor struct {
	ID      string // user id
	Address string // of the client; for the audit trail
	// API reports that the token is for this service's own API and for nothing else. Of
	// other tokens the services that they are for could be the ones who present them.
	API      bool
	AuthTime time.Time // when the user authenticated; zero: that is not known
	system   bool
}

// Holder returns the actor who holds a verified token. The address is the client's. The
// issuer is the audience of this service's own API.
func Holder(t *accesstoken.Token, address string) Actor {
	return Actor{ID: t.Subject, Address: address, API: slices.Equal(t.Audience, []string{t.Issuer}), AuthTime: t.AuthTime}
}

// System is the actor of the offline commands and of the replica itself, which have no
// token: their right is that they can write to the database. It holds every right at any
// time.
func System() Actor { return Actor{system: true} }

// atHome returns nil if the actor's token is for this service's own API.
func (a Actor) atHome() error {
	if !a.system && !a.API {
		return ErrWrongAudience
	}
	return nil
}

// Authenticated returns a user who has authenticated at this moment and has no token yet, as
// in the course of a login.
func Authenticated(userID, address string, at time.Time) Actor {
	return Actor{ID: userID, Address: address, API: true, AuthTime: at}
}

// changes reports whether a permission is one to change something, which needs a fresh
// login. Whoever changes what is their own needs none if they prove in that moment who they are.
func changes(permission string) bool {
	return permission != own && !strings.HasSuffix(permission, ":read")
}
