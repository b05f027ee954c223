package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// ErrUserNotFound: no user has this id or name.
var ErrUserNotFound = problem.New(problem.NotFound, "user_not_found", "there is no such user")

// A NewUser is a user to be created.
type NewUser struct {
	Username string
	Password string // empty: no login by password
	Email    string
	// EmailVerified says that the address is the user's. It needs UsersVerify.
	EmailVerified bool
	FirstName     string
	LastName      string
	Disabled      bool
	Groups        []string // by id or name
	// Administrator makes the user a superuser: a member of the group Administrators,
	// which is created if it is not there.
	Administrator bool
}

// A UserPatch is a change of a user. What is nil stays as it is.
type UserPatch struct {
	Username *string
	Password *string // a new one ends the sessions and revokes the tokens
	Email    *string // another one is not verified
	// EmailVerified says whether the address is the user's. true needs UsersVerify.
	EmailVerified *bool
	FirstName     *string
	LastName      *string
	Disabled      *bool
	// Version is that of the user as whoever changes it has seen it. ErrChangedMeanwhile: the
	// user has another one.
	Version *int64
}

// CreateUser adds a user. It needs UsersWrite and all rights of the groups. It refuses an
// e-mail address that another user has, a username that looks like another user's, both
// while tokens may be valid that give them to somebody else, and any name of a user who
// holds rights that the actor does not hold.
func (s *Service) CreateUser(ctx context.Context, actor Actor, n NewUser) (store.User, error) {
	return s.createUser(ctx, actor, n, "")
}

// createUser is CreateUser for a user who may have a hash of another system in the place of a
// password (password.Foreign).
func (s *Service) createUser(ctx context.Context, actor Actor, n NewUser, hash string) (store.User, error) {
	const action = "user.create"
	user, err := n.user()
	if err != nil {
		return store.User{}, err
	}
	if hash != "" {
		if user.PasswordHash, err = password.Foreign(hash); err != nil {
			return store.User{}, err
		}
	}
	if n.Password != "" {
		if user.PasswordHash, err = s.hashFor(ctx, actor, action, user.Username, n.Password); err != nil {
			return store.User{}, err
		}
	}
	err = s.change(ctx, actor, UsersWrite, action, user.Username, func(c *change) error {
		var groups []store.Group
		for _, ref := range n.Groups {
			g, err := findGroup(ctx, c.r, ref)
			if errors.Is(err, ErrGroupNotFound) {
				return problem.New(problem.NotFound, ErrGroupNotFound.Code, "there is no group %q", ref)
			}
			if err != nil {
				return err
			}
			groups = append(groups, g)
		}
		if n.Administrator {
			g, err := c.administrators(ctx)
			if err != nil {
				return err
			}
			groups = append(groups, g)
		}
		if err := c.createUser(ctx, &user); err != nil {
			return err
		}
		for i, g := range groups {
			if slices.Contains(groups[:i], g) {
				continue
			}
			if err := c.join(ctx, user, g); err != nil {
				return err
			}
		}
		return nil
	})
	return withoutHash(user), err
}

// user checks the fields, and makes a user of them who has no password yet.
func (n NewUser) user() (store.User, error) {
	u := store.User{Disabled: n.Disabled}
	return u, patchUser(&u, UserPatch{
		Username: &n.Username, Email: &n.Email, EmailVerified: &n.EmailVerified, FirstName: &n.FirstName, LastName: &n.LastName,
	})
}

// patchUser applies the patch to a user, or returns what is wrong with it.
func patchUser(u *store.User, p UserPatch) (err error) {
	if p.Username != nil {
		if u.Username, u.NameKey, err = names.Username(*p.Username); err != nil {
			return err
		}
	}
	if p.Email != nil {
		before := u.Email
		if u.Email, err = names.Email(*p.Email); err != nil {
			return err
		}
		u.EmailVerified = u.EmailVerified && u.Email == before
	}
	if p.EmailVerified != nil {
		if u.EmailVerified = *p.EmailVerified; u.EmailVerified && u.Email == "" {
			return errNoEmail
		}
	}
	if p.FirstName != nil {
		if u.FirstName, err = names.Person(*p.FirstName); err != nil {
			return err
		}
	}
	if p.LastName != nil {
		if u.LastName, err = names.Person(*p.LastName); err != nil {
			return err
		}
	}
	if p.Disabled != nil {
		u.Disabled = *p.Disabled
	}
	return nil
}

// User returns the user with the id or name. It needs UsersRead, unless the user is the
// actor.
func (s *Service) User(ctx context.Context, actor Actor, ref string) (store.User, error) {
	if err := actor.atHome(); err != nil {
		return store.User{}, err
	}
	u, err := findUser(ctx, s.Store, ref)
	if err != nil || u.ID != actor.ID {
		if err := s.Authorize(ctx, actor, UsersRead); err != nil {
			return store.User{}, err
		}
	}
	return withoutHash(u), fault(err)
}

// UsersWithIDs returns those of the users who are there, in the order of their ids. It needs
// UsersRead.
func (s *Service) UsersWithIDs(ctx context.Context, actor Actor, ids []string) ([]store.User, error) {
	if err := s.Authorize(ctx, actor, UsersRead); err != nil {
		return nil, err
	}
	users, err := s.Store.UsersWithIDs(ctx, ids)
	for i := range users {
		users[i] = withoutHash(users[i])
	}
	return users, fault(err)
}

// Users returns users in the order of their names. It needs UsersRead.
func (s *Service) Users(ctx context.Context, actor Actor, p Page) (List[store.User], error) {
	if err := s.Authorize(ctx, actor, UsersRead); err != nil {
		return List[store.User]{}, err
	}
	return users(ctx, p, s.Store.Users)
}

func users(ctx context.Context, p Page, ask func(context.Context, store.Page) ([]store.User, error)) (List[store.User], error) {
	l, err := list(ctx, p, names.UsernameKey, func(u store.User) string { return u.NameKey }, ask)
	for i := range l.Items {
		l.Items[i] = withoutHash(l.Items[i])
	}
	return l, err
}

// GroupsOf returns the groups of a user, who is named by id or name. It needs UsersRead,
// unless the user is the actor.
func (s *Service) GroupsOf(ctx context.Context, actor Actor, user string) ([]store.Group, error) {
	u, err := s.User(ctx, actor, user)
	if err != nil {
		return nil, err
	}
	groups, err := s.Store.GroupsOfUser(ctx, u.ID)
	return groups, fault(err)
}

// UpdateUser changes a user. It needs UsersWrite and all rights of the user, and refuses
// the names that CreateUser refuses. Disabling the user, and another password, end the
// sessions and revoke the tokens. Another username, name or e-mail address revokes the
// tokens, which say what it was; the sessions go on. Nobody gives themselves another
// password: ChangeOwnPassword asks for the present one.
func (s *Service) UpdateUser(ctx context.Context, actor Actor, user string, p UserPatch) (store.User, error) {
	const action = "user.update"
	hash := ""
	if p.Password != nil {
		var err error
		if hash, err = s.hashFor(ctx, actor, action, user, *p.Password); err != nil {
			return store.User{}, err
		}
	}
	var u store.User
	err := s.changeUser(ctx, actor, action, user, func(c *change, found store.User) error {
		u = found
		if p.Version != nil && *p.Version != u.Version {
			return ErrChangedMeanwhile
		}
		if p.Password != nil && u.ID == actor.ID {
			return errOwnPassword
		}
		if err := patchUser(&u, p); err != nil {
			return err
		}
		if hash != "" {
			u.PasswordHash = hash
		}
		if u == found {
			return errNothing
		}
		if u.EmailVerified && (!found.EmailVerified || u.Email != found.Email) && !c.rights.Can(UsersVerify) {
			return ErrPermissionMissing
		}
		if err := c.updateUser(ctx, found, &u); err != nil {
			return err
		}
		reason := ""
		switch {
		case u.Disabled && !found.Disabled:
			reason = "user_disabled"
		case hash != "":
			reason = "password_changed"
		}
		if reason != "" {
			if err := c.revoke(ctx, u.ID, true, reason); err != nil {
				return err
			}
		} else if identity(u) != identity(found) {
			if err := c.revoke(ctx, u.ID, false, "identity_changed"); err != nil {
				return err
			}
		}
		return c.note(ctx, action, u.ID, "%s", changedFields(found, u))
	})
	return withoutHash(u), err
}

// identity is what a token says of a user beyond the claims.
func identity(u store.User) store.User {
	return store.User{
		Username: u.Username, NameKey: u.NameKey, Email: u.Email, EmailVerified: u.EmailVerified,
		FirstName: u.FirstName, LastName: u.LastName,
	}
}

// SetPassword is UpdateUser with a new password and nothing else.
func (s *Service) SetPassword(ctx context.Context, actor Actor, user, password string) error {
	_, err := s.UpdateUser(ctx, actor, user, UserPatch{Password: &password})
	return err
}

// DeleteUser removes a user, ends the user's sessions and revokes the user's tokens. It
// needs UsersWrite and all rights of the user.
func (s *Service) DeleteUser(ctx context.Context, actor Actor, user string) error {
	const action = "user.delete"
	return s.changeUser(ctx, actor, action, user, func(c *change, u store.User) error {
		if err := c.revoke(ctx, u.ID, true, "user_deleted"); err != nil {
			return err
		}
		if err := c.r.DeleteUser(ctx, u.ID); err != nil {
			return err
		}
		if err := c.identify(ctx, u, store.User{ID: u.ID}); err != nil {
			return err
		}
		return c.note(ctx, action, u.ID, "%s", u.Username)
	})
}

// AddToGroup makes the user a member of a group. It is no error if the user is one. It
// needs UsersWrite, and all rights of the user and of the group.
func (s *Service) AddToGroup(ctx context.Context, actor Actor, user, group string) error {
	return s.changeUser(ctx, actor, "user.join", user, func(c *change, u store.User) error {
		g, member, err := c.membership(ctx, u, group)
		if err != nil {
			return err
		}
		if member {
			return errNothing
		}
		return c.join(ctx, u, g)
	})
}

// RemoveFromGroup ends a membership and revokes the user's tokens. It is no error if the
// user is no member. It needs UsersWrite and all rights of the user, which include those
// of the group.
func (s *Service) RemoveFromGroup(ctx context.Context, actor Actor, user, group string) error {
	const action = "user.leave"
	return s.changeUser(ctx, actor, action, user, func(c *change, u store.User) error {
		g, member, err := c.membership(ctx, u, group)
		if err != nil {
			return err
		}
		if !member {
			return errNothing
		}
		if err := c.r.RemoveMember(ctx, u.ID, g.ID); err != nil {
			return err
		}
		if err := c.revoke(ctx, u.ID, false, "rights_changed"); err != nil {
			return err
		}
		return c.note(ctx, action, u.ID, "group %s", g.Name)
	})
}

// changeUser is change for a user who exists and all of whose rights the actor holds.
func (s *Service) changeUser(ctx context.Context, actor Actor, action, ref string, f func(*change, store.User) error) error {
	return s.change(ctx, actor, UsersWrite, action, ref, func(c *change) error {
		u, err := findUser(ctx, c.r, ref)
		if err != nil {
			return err
		}
		if err := within(ctx, c.rights, c.r.ClaimsOfUser, u.ID); err != nil {
			return err
		}
		return f(c, u)
	})
}

// createUser adds a user, and sets the id and times.
func (c *change) createUser(ctx context.Context, u *store.User) (err error) {
	if u.EmailVerified && !c.rights.Can(UsersVerify) {
		return ErrPermissionMissing
	}
	if u.ID, err = c.s.newID(); err != nil {
		return err
	}
	u.CreatedAt, u.UpdatedAt, u.Version = c.now, c.now, 1
	if err := usernameTaken(c.r.CreateUser(ctx, *u)); err != nil {
		return err
	}
	if err := c.identify(ctx, store.User{}, *u); err != nil {
		return err
	}
	return c.note(ctx, "user.create", u.ID, "%s", u.Username)
}

// updateUser writes a user, and sets the time and version as the store then has them.
func (c *change) updateUser(ctx context.Context, found store.User, u *store.User) error {
	u.UpdatedAt = c.now
	if err := usernameTaken(c.r.UpdateUser(ctx, *u)); err != nil {
		return err
	}
	u.Version++
	if identity(*u) == identity(found) {
		return nil
	}
	return c.identify(ctx, found, *u)
}

func usernameTaken(err error) error {
	if errors.Is(err, store.ErrConflict) {
		return errNameTaken.Because(err)
	}
	return err
}

// membership returns the group with the id or name, and reports whether the user is in it.
func (c *change) membership(ctx context.Context, u store.User, group string) (store.Group, bool, error) {
	g, err := findGroup(ctx, c.r, group)
	if err != nil {
		return g, false, err
	}
	groups, err := c.r.GroupsOfUser(ctx, u.ID)
	for _, one := range groups {
		if one.ID == g.ID {
			return g, true, err
		}
	}
	return g, false, err
}

// join makes the user a member of a group all of whose rights the actor holds.
func (c *change) join(ctx context.Context, u store.User, g store.Group) error {
	if err := within(ctx, c.rights, c.r.ClaimsOfGroup, g.ID); err != nil {
		return err
	}
	if err := c.r.AddMember(ctx, u.ID, g.ID); err != nil {
		return err
	}
	if err := fitToken(ctx, c.r.ClaimsOfUser, u.ID); err != nil {
		return err
	}
	return c.note(ctx, "user.join", u.ID, "group %s", g.Name)
}

// hashFor hashes a new password. It does so before the transaction, because hashing takes
// long, and only for an actor who may set a password, because hashing is expensive.
func (s *Service) hashFor(ctx context.Context, actor Actor, action, target, plain string) (string, error) {
	if err := s.Authorize(ctx, actor, UsersWrite); err != nil {
		s.denied(ctx, actor, action, target, err)
		return "", err
	}
	prepared, err := password.PrepareNew(plain)
	if err != nil {
		return "", err
	}
	return s.hash(onBehalfOf(ctx, actor), prepared)
}

// onBehalfOf returns a context whose hashes are for an actor.
func onBehalfOf(ctx context.Context, actor Actor) context.Context {
	return password.From(ctx, password.Source{Address: actor.Address, Account: actor.ID})
}

// hash is Hasher.Hash with errors that a client may read.
func (s *Service) hash(ctx context.Context, prepared string) (string, error) {
	hash, err := s.Hasher.Hash(ctx, prepared)
	return hash, hashFault(err)
}

func hashFault(err error) error {
	if err == nil || errors.Is(err, password.ErrBusy) || errors.Is(err, password.ErrFlood) {
		return err
	}
	return password.ErrBusy.Because(err)
}

// findUser returns the user with the id or name.
func findUser(ctx context.Context, r store.Records, ref string) (store.User, error) {
	byName := func(ctx context.Context, key string) (store.User, error) { return UserNamed(ctx, r, key) }
	u, err := find(ctx, ref, r.User, byName, names.UsernameKey)
	if errors.Is(err, store.ErrNotFound) {
		err = ErrUserNotFound
	}
	return u, err
}

// find looks for an id by id, and for anything else by name. If ids were looked for among
// the names too, then the id of a deleted object could later be found as another object's
// name.
func find[T any](ctx context.Context, ref string, byID, byName func(context.Context, string) (T, error), fold func(string) (string, error)) (T, error) {
	var none T
	if isID(ref) {
		return byID(ctx, ref)
	}
	key, err := fold(ref)
	if err != nil || names.LooksLikeID(key) {
		return none, store.ErrNotFound // nothing can have such a name
	}
	return byName(ctx, key)
}

// isID reports whether a text is an id in the form in which ids are written.
func isID(text string) bool {
	id, err := uuid.Parse(text)
	return err == nil && id.String() == text
}

// withoutHash is a user as this package returns it: without the hash of the password.
func withoutHash(u store.User) store.User {
	u.PasswordHash = ""
	return u
}

// changedFields names the fields in which two users differ, for the audit trail.
func changedFields(a, b store.User) string {
	s := "changed"
	for _, f := range []struct {
		name    string
		changed bool
	}{
		{"username", a.Username != b.Username},
		{"email", a.Email != b.Email},
		{"email_verified", a.EmailVerified != b.EmailVerified},
		{"first_name", a.FirstName != b.FirstName},
		{"last_name", a.LastName != b.LastName},
		{"password", a.PasswordHash != b.PasswordHash},
		{"disabled", a.Disabled != b.Disabled},
	} {
		if f.changed {
			s += " " + f.name
		}
	}
	if a.Disabled != b.Disabled {
		s += fmt.Sprintf("=%t", b.Disabled)
	}
	return s
}
