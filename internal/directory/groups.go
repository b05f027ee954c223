package directory

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// ErrGroupNotFound: no group has this id or name.
var ErrGroupNotFound = problem.New(problem.NotFound, "group_not_found", "there is no such group")

// A NewGroup is a group to be created.
type NewGroup struct {
	Name   string
	Claims []string // by id or name
}

// A GroupPatch is a change of a group. What is nil stays as it is.
type GroupPatch struct {
	Name    *string
	Version *int64 // as that of UserPatch
}

// CreateGroup adds a group. It needs GroupsWrite and the rights of all its claims.
func (s *Service) CreateGroup(ctx context.Context, actor Actor, n NewGroup) (store.Group, error) {
	const action = "group.create"
	name, key, err := names.New("group", n.Name)
	if err != nil {
		return store.Group{}, err
	}
	g := store.Group{Name: name, NameKey: key}
	err = s.change(ctx, actor, GroupsWrite, action, name, func(c *change) error {
		if err := c.createGroup(ctx, &g); err != nil {
			return err
		}
		for _, ref := range n.Claims {
			one, err := findClaim(ctx, c.r, ref)
			if err != nil {
				return err
			}
			if err := c.link(ctx, g, one); err != nil {
				return err
			}
		}
		return nil
	})
	return g, err
}

// Group returns the group with the id or name. It needs GroupsRead.
func (s *Service) Group(ctx context.Context, actor Actor, ref string) (store.Group, error) {
	if err := s.Authorize(ctx, actor, GroupsRead); err != nil {
		return store.Group{}, err
	}
	g, err := findGroup(ctx, s.Store, ref)
	return g, fault(err)
}

// Groups returns groups in the order of their names. It needs GroupsRead.
func (s *Service) Groups(ctx context.Context, actor Actor, p Page) (List[store.Group], error) {
	if err := s.Authorize(ctx, actor, GroupsRead); err != nil {
		return List[store.Group]{}, err
	}
	fold := func(prefix string) (string, error) { return names.Key("group", prefix) }
	return list(ctx, p, fold, func(g store.Group) string { return g.NameKey }, s.Store.Groups)
}

// ClaimsOfGroup returns the claims that a group, named by id or name, gives. It needs
// GroupsRead.
func (s *Service) ClaimsOfGroup(ctx context.Context, actor Actor, group string) ([]store.Claim, error) {
	g, err := s.Group(ctx, actor, group)
	if err != nil {
		return nil, err
	}
	claims, err := s.Store.ClaimsOfGroup(ctx, g.ID)
	return claims, fault(err)
}

// MembersOfGroup returns members in the order of their names. It needs GroupsRead and
// UsersRead.
func (s *Service) MembersOfGroup(ctx context.Context, actor Actor, group string, p Page) (List[store.User], error) {
	g, err := s.Group(ctx, actor, group)
	if err != nil {
		return List[store.User]{}, err
	}
	if err := s.Authorize(ctx, actor, UsersRead); err != nil {
		return List[store.User]{}, err
	}
	return users(ctx, p, func(ctx context.Context, p store.Page) ([]store.User, error) {
		return s.Store.MembersOfGroup(ctx, g.ID, p)
	})
}

// UpdateGroup changes a group. It needs GroupsWrite and all rights of the group and of its
// members.
func (s *Service) UpdateGroup(ctx context.Context, actor Actor, group string, p GroupPatch) (store.Group, error) {
	const action = "group.update"
	var g store.Group
	err := s.changeGroup(ctx, actor, action, group, func(c *change, found store.Group) (err error) {
		g = found
		if p.Version != nil && *p.Version != g.Version {
			return ErrChangedMeanwhile
		}
		if p.Name != nil {
			if g.Name, g.NameKey, err = names.New("group", *p.Name); err != nil {
				return err
			}
		}
		if g == found {
			return errNothing
		}
		g.UpdatedAt = c.now
		if err := nameTaken("group", c.r.UpdateGroup(ctx, g)); err != nil {
			return err
		}
		g.Version++
		return c.note(ctx, action, g.ID, "%s, was %s", g.Name, found.Name)
	})
	return g, err
}

// DeleteGroup removes a group and revokes the tokens of its members. It needs GroupsWrite
// and all rights of the group and of its members.
func (s *Service) DeleteGroup(ctx context.Context, actor Actor, group string) error {
	const action = "group.delete"
	return s.changeGroup(ctx, actor, action, group, func(c *change, g store.Group) error {
		claims, err := c.r.ClaimsOfGroup(ctx, g.ID)
		if err != nil {
			return err
		}
		if len(claims) > 0 {
			if err := c.revokeMembers(ctx, g.ID, "rights_changed"); err != nil {
				return err
			}
		}
		if err := c.r.DeleteGroup(ctx, g.ID); err != nil {
			return err
		}
		return c.note(ctx, action, g.ID, "%s", g.Name)
	})
}

// AddClaim makes a group give a claim. It is no error if the group gives it already. It
// needs GroupsWrite, the claim's right, and all rights of the group and of its members.
// ErrClaimsTooLarge: the claims of the group or of a member would not fit into a token.
func (s *Service) AddClaim(ctx context.Context, actor Actor, group, claim string) error {
	return s.changeGroup(ctx, actor, "group.add_claim", group, func(c *change, g store.Group) error {
		one, linked, err := c.linked(ctx, g, claim)
		if err != nil {
			return err
		}
		if linked {
			return errNothing
		}
		return c.link(ctx, g, one)
	})
}

// RemoveClaim makes a group give a claim no more, and revokes the tokens of its members.
// It is no error if the group does not give the claim. It needs GroupsWrite and all rights
// of the group and of its members.
func (s *Service) RemoveClaim(ctx context.Context, actor Actor, group, claim string) error {
	const action = "group.remove_claim"
	return s.changeGroup(ctx, actor, action, group, func(c *change, g store.Group) error {
		one, linked, err := c.linked(ctx, g, claim)
		if err != nil {
			return err
		}
		if !linked {
			return errNothing
		}
		if err := c.revokeMembers(ctx, g.ID, "rights_changed"); err != nil {
			return err
		}
		if err := c.r.RemoveClaim(ctx, g.ID, one.ID); err != nil {
			return err
		}
		return c.note(ctx, action, g.ID, "claim %s", one.Name)
	})
}

// changeGroup is change for a group that exists. The actor holds all its rights and all
// rights of its members: what is done to a group is done to them.
func (s *Service) changeGroup(ctx context.Context, actor Actor, action, ref string, f func(*change, store.Group) error) error {
	return s.change(ctx, actor, GroupsWrite, action, ref, func(c *change) error {
		g, err := findGroup(ctx, c.r, ref)
		if err != nil {
			return err
		}
		if err := c.withinGroup(ctx, g); err != nil {
			return err
		}
		return f(c, g)
	})
}

// withinGroup is within for a group and its members.
func (c *change) withinGroup(ctx context.Context, g store.Group) error {
	if err := within(ctx, c.rights, c.r.ClaimsOfGroup, g.ID); err != nil {
		return err
	}
	return within(ctx, c.rights, c.r.ClaimsOfMembers, g.ID)
}

// fitGroup is fitToken for a group and its members. Where the claims of all members
// together would fit, those of each do.
func (c *change) fitGroup(ctx context.Context, g store.Group) error {
	if err := fitToken(ctx, c.r.ClaimsOfGroup, g.ID); err != nil {
		return err
	}
	all, err := c.r.ClaimsOfMembers(ctx, g.ID)
	if err != nil || fit(all) {
		return err
	}
	measured := 0
	return c.eachMember(ctx, g.ID, func(u store.User) error {
		if measured++; measured > MaxAffected {
			return ErrTooManyMembers
		}
		return fitToken(ctx, c.r.ClaimsOfUser, u.ID)
	})
}

// createGroup adds a group, and sets its id and times.
func (c *change) createGroup(ctx context.Context, g *store.Group) (err error) {
	if g.ID, err = c.s.newID(); err != nil {
		return err
	}
	g.CreatedAt, g.UpdatedAt, g.Version = c.now, c.now, 1
	if err := nameTaken("group", c.r.CreateGroup(ctx, *g)); err != nil {
		return err
	}
	return c.note(ctx, "group.create", g.ID, "%s", g.Name)
}

func nameTaken(what string, err error) error {
	if errors.Is(err, store.ErrConflict) {
		return problem.New(problem.Conflict, what+"_name_taken", "there is a %s of this name", what).Because(err)
	}
	return err
}

// linked returns the claim with the id or name, and reports whether the group gives it.
func (c *change) linked(ctx context.Context, g store.Group, claim string) (store.Claim, bool, error) {
	one, err := findClaim(ctx, c.r, claim)
	if err != nil {
		return one, false, err
	}
	claims, err := c.r.ClaimsOfGroup(ctx, g.ID)
	for _, other := range claims {
		if other.ID == one.ID {
			return one, true, err
		}
	}
	return one, false, err
}

// link makes a group give a claim whose right the actor holds.
func (c *change) link(ctx context.Context, g store.Group, one store.Claim) error {
	if !c.rights.Holds(Right{one.ShortName, one.Value}) {
		return ErrBeyondOwnRights
	}
	if err := c.r.AddClaim(ctx, g.ID, one.ID); err != nil {
		return err
	}
	if err := c.fitGroup(ctx, g); err != nil {
		return err
	}
	return c.note(ctx, "group.add_claim", g.ID, "claim %s", one.Name)
}

// findGroup returns the group with the id or name.
func findGroup(ctx context.Context, r store.Groups, ref string) (store.Group, error) {
	fold := func(s string) (string, error) { return names.Key("group", s) }
	g, err := find(ctx, ref, r.Group, r.GroupByName, fold)
	if errors.Is(err, store.ErrNotFound) {
		err = ErrGroupNotFound
	}
	return g, err
}
