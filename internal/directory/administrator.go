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
	// firstAdministrator is the setting that exists once the first administrator was made.
	// Its value is random, so that the replica that wrote it recognises it.
	firstAdministrator = "first_administrator"
	// maxConflicts bounds how often a transaction is run.
	maxConflicts = 10
)

// A Bootstrap is the first administrator, as the operator names it.
type Bootstrap struct {
	Username string
	Password string
}

// HasAdministrator reports whether an enabled user is a superuser.
func (s *Service) HasAdministrator(ctx context.Context) (bool, error) {
	has, err := s.Store.AnyoneHolds(ctx, Admin, Superuser)
	return has, fault(err)
}

// AnyAdministrator reports whether an enabled user has any permission of administration: a
// superuser, or whoever else holds a value of the claim Admin.
func (s *Service) AnyAdministrator(ctx context.Context) (bool, error) {
	any, err := s.Store.AnyoneHoldsAny(ctx, Admin)
	return any, fault(err)
}

// Administration returns the actor, as a user, and their rights, if they have at least one
// permission of administration; ErrNotAnAdministrator otherwise. System is no user.
func (s *Service) Administration(ctx context.Context, actor Actor) (store.User, Rights, error) {
	user, rights, err := s.standing(ctx, s.Store, actor)
	if errors.Is(err, ErrPermissionMissing) || err == nil && !rights.Administer() {
		err = ErrNotAnAdministrator
	}
	if err != nil {
		return store.User{}, Rights{}, fault(err)
	}
	return withoutHash(user), rights, nil
}

// EnsureAdministrator makes the first administrator, once in the life of a database. Of
// all replicas that try, one succeeds, and only there created is true: nobody but its
// caller knows the password. While there is an administrator, nothing happens; and if the
// administrators were lost, none is made by itself. The operator then makes one with
// CreateUser in the name of System.
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
	mine, err := s.newID()
	if err != nil {
		return false, err
	}
	err = s.retryConflicts(func() error {
		return s.change(ctx, System(), UsersWrite, "user.create", user.Username, func(c *change) error {
			created = false
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
	if err == nil {
		return created, nil
	}
	// A commit may fail and be persisted all the same. Then the administrator exists, and
	// without this look the password would be lost.
	first, lookErr := s.Store.Setting(context.WithoutCancel(ctx), firstAdministrator)
	if lookErr == nil && first == mine {
		return true, nil
	}
	return false, err
}

// retryConflicts runs f again when another replica made the same thing at the same
// moment: the next run finds it there.
func (s *Service) retryConflicts(f func() error) (err error) {
	for range maxConflicts {
		if err = f(); !errors.Is(err, store.ErrConflict) {
			break
		}
	}
	return err
}

// administrators returns the group whose members are superusers, and makes it if it is
// not there. If a group or claim of the name is something else, that is an error: turning
// it into this one would make superusers of its members.
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
