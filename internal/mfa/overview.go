package mfa

import (
	"context"
	"time"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/store"
)

// An Overview is what a user has.
type Overview struct {
	Required bool // whether the user is asked for a factor even without one
	Factors  []Info
}

// Info describes a factor.
type Info struct {
	ID         string
	Method     string
	Name       string // of a passkey
	CreatedAt  time.Time
	UsedAt     time.Time // zero: never, or of backup codes
	Left       int       // backup codes
	Synced     bool      // a passkey that is copied between devices
	Cloned     bool      // a passkey whose counter has once not grown
	Transports []string  // by which a passkey is reached
	// Unreadable: the row does not open, and the user cannot log in before it is removed.
	Unreadable bool
}

// Overview returns what a user, named by id or name, has. It needs UsersRead, unless the
// user is the actor.
func (s *Service) Overview(ctx context.Context, actor directory.Actor, user string) (Overview, error) {
	u, err := s.People.User(ctx, actor, user)
	if err != nil {
		return Overview{}, err
	}
	rows, err := s.Store.FactorsOfUser(ctx, u.ID)
	if err != nil {
		return Overview{}, unavailable(err)
	}
	o := Overview{Factors: []Info{}}
	if o.Required, err = s.must(ctx, u.ID); err != nil {
		return Overview{}, unavailable(err)
	}
	for _, f := range rows {
		if f.Kind != kindRecovery {
			o.Factors = append(o.Factors, s.info(f))
		}
	}
	return o, nil
}

func (s *Service) info(f store.Factor) Info {
	i := Info{ID: f.ID, CreatedAt: f.CreatedAt}
	var err error
	switch f.Kind {
	case kindTOTP:
		i.Method = TOTP
		var r *row[totpContent]
		if r, err = opened[totpContent](s, f); err == nil {
			i.UsedAt = r.Content.UsedAt
		}
	case kindCodes:
		i.Method = BackupCode
		var r *row[codesContent]
		if r, err = opened[codesContent](s, f); err == nil {
			i.Left = r.Content.left()
		}
	case kindPasskey:
		i.Method = Passkey
		var r *row[passkeyContent]
		if r, err = opened[passkeyContent](s, f); err == nil {
			c := r.Content
			i.Name, i.UsedAt, i.Cloned = c.Name, c.UsedAt, c.Cloned
			i.Synced, i.Transports = c.Credential.Synced(), c.Credential.Transports()
		}
	default:
		i.Method = f.Kind
		i.Unreadable = true
	}
	i.Unreadable = i.Unreadable || err != nil
	return i
}

// Reset removes the factors of a user, named by id or name, or the one with the id. It ends the
// user's sessions and revokes the user's tokens. It needs UsersWrite and all rights of the user.
func (s *Service) Reset(ctx context.Context, actor directory.Actor, user, id string) error {
	detail := "all"
	if id != "" {
		detail = "factor " + id
	}
	return s.People.ChangeFactors(ctx, actor, user, "mfa.reset", true,
		s.removal(ctx, detail, func(f store.Factor) bool { return id == "" || f.ID == id }))
}
