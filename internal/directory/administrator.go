package directory

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

const (
	administratorsGroup = "Administrators"
	superuserClaim      = "Superuser"
	// firstAdministrator is the setting that says who the first administrator was.
	firstAdministrator = "first_administrator"
	// maxMeetings bounds how often a transaction is done again that met another one
	// which made the same thing.
	maxMeetings = 10
)

// A Bootstrap is the first administrator, as the operator names him.
type Bootstrap struct {
	Username string
	Password string
}

// HasAdministrator says whether an enabled user is a superuser.
func (s *Service) HasAdministrator(ctx context.Context) (bool, error) {
	has, err := s.Store.AnyoneHolds(ctx, Admin, Superuser)
	return has, fault(err)
}

// EnsureAdministrator makes the first administrator, once in the life of a
// database: of all replicas that try, one does, and is told so. It does nothing
// when there is an administrator, and nothing more when there was one; to come
// back from that, make another one with CreateUser in the name of System.
func (s *Service) EnsureAdministrator(ctx context.Context, b Bootstrap) (created bool, err error) {
	if has, err := s.HasAdministrator(ctx); err != nil || has {
		return false, err
	}
	user, err := NewUser{Username: b.Username}.user()
	if err != nil {
		return false, err
	}
	prepared, err := password.PrepareNew(b.Password)
	if err != nil {
		return false, err
	}
	if user.PasswordHash, err = s.hash(ctx, prepared); err != nil {
		return false, err
	}
	err = s.meet(func() error {
		return s.change(ctx, System(), UsersWrite, "user.create", user.Username, func(c *change) error {
			created = false
			mine, err := c.s.newID()
			if err != nil {
				return err
			}
			if first, err := c.r.CreateSetting(ctx, firstAdministrator, mine); err != nil {
				return err
			} else if first != mine {
				return errNothing
			}
			if has, err := c.r.AnyoneHolds(ctx, Admin, Superuser); err != nil {
				return err
			} else if has {
				return errNothing
			}
			group, err := c.administrators(ctx)
			if err != nil {
				return err
			}
			if err := c.createUser(ctx, &user); err != nil {
				return err
			}
			created = true
			return c.join(ctx, user, group)
		})
	})
	return created && err == nil, err
}

// meet does it again when another replica made the same thing at the same moment,
// so that the next look finds it there.
func (s *Service) meet(f func() error) (err error) {
	for range maxMeetings {
		if err = f(); !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	return err
}

// administrators returns the group whose members are superusers and makes it if
// it is not there. A group or claim of the name that is something else is left
// alone: turning it into this one would raise whoever has it.
func (c *change) administrators(ctx context.Context) (store.Group, error) {
	g, err := findGroup(ctx, c.r, administratorsGroup)
	if err == nil {
		claims, err := c.r.ClaimsOfGroup(ctx, g.ID)
		if err == nil && !RightsOf(claims).Superuser() {
			err = problem.New(problem.Conflict, "administrators_taken",
				"there is a group %s without the claim %s=%s; rename it, or give it that claim", administratorsGroup, Admin, Superuser)
		}
		return g, err
	}
	if !errors.Is(err, ErrGroupNotFound) {
		return g, err
	}
	one, err := c.superuserClaim(ctx)
	if err != nil {
		return g, err
	}
	g = store.Group{}
	if g.Name, g.NameKey, err = names.New("group", administratorsGroup); err != nil {
		return g, err
	}
	if err := c.createGroup(ctx, &g); err != nil {
		return g, err
	}
	return g, c.link(ctx, g, one)
}

func (c *change) superuserClaim(ctx context.Context) (store.Claim, error) {
	one, err := findClaim(ctx, c.r, superuserClaim)
	if err == nil && (Right{one.ShortName, one.Value}) != superuser {
		err = problem.New(problem.Conflict, "superuser_taken",
			"there is a claim %s that is not %s=%s; rename it", superuserClaim, Admin, Superuser)
	}
	if !errors.Is(err, ErrClaimNotFound) {
		return one, err
	}
	one = store.Claim{ShortName: Admin, Value: Superuser}
	if one.Name, one.NameKey, err = names.New("claim", superuserClaim); err != nil {
		return one, err
	}
	return one, c.createClaim(ctx, &one)
}
