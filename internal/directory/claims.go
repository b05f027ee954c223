package directory

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// ErrClaimNotFound: no claim has this id or name.
var ErrClaimNotFound = problem.New(problem.NotFound, "claim_not_found", "there is no such claim")

// A NewClaim is a claim to be created.
type NewClaim struct {
	Name      string
	ShortName string // the token's claim name
	Value     string // one value
}

// A ClaimPatch is a change of a claim. What is nil stays as it is.
type ClaimPatch struct {
	Name      *string
	ShortName *string
	Value     *string
	Version   *int64 // as that of UserPatch
}

// CreateClaim adds a claim. It needs ClaimsWrite and the claim's right itself, so that
// only a superuser can make a right that nobody has held before.
func (s *Service) CreateClaim(ctx context.Context, actor Actor, n NewClaim) (store.Claim, error) {
	var one store.Claim
	if err := patchClaim(&one, ClaimPatch{Name: &n.Name, ShortName: &n.ShortName, Value: &n.Value}); err != nil {
		return store.Claim{}, err
	}
	err := s.change(ctx, actor, ClaimsWrite, "claim.create", one.Name, func(c *change) error {
		return c.createClaim(ctx, &one)
	})
	return one, err
}

// patchClaim applies the patch to a claim, or returns what is wrong with it.
func patchClaim(one *store.Claim, p ClaimPatch) (err error) {
	if p.Name != nil {
		if one.Name, one.NameKey, err = names.New("claim", *p.Name); err != nil {
			return err
		}
	}
	if p.ShortName != nil {
		one.ShortName = *p.ShortName
	}
	if p.Value != nil {
		one.Value = *p.Value
	}
	one.Value, err = right(one.ShortName, one.Value)
	return err
}

// Claim returns the claim with the id or name. It needs ClaimsRead.
func (s *Service) Claim(ctx context.Context, actor Actor, ref string) (store.Claim, error) {
	if err := s.Authorize(ctx, actor, ClaimsRead); err != nil {
		return store.Claim{}, err
	}
	one, err := findClaim(ctx, s.Store, ref)
	return one, fault(err)
}

// Claims returns claims in the order of their names. It needs ClaimsRead.
func (s *Service) Claims(ctx context.Context, actor Actor, p Page) (List[store.Claim], error) {
	if err := s.Authorize(ctx, actor, ClaimsRead); err != nil {
		return List[store.Claim]{}, err
	}
	fold := func(prefix string) (string, error) { return names.Key("claim", prefix) }
	return list(ctx, p, fold, func(c store.Claim) string { return c.NameKey }, s.Store.Claims)
}

// GroupsWithClaim returns the groups that give a claim, named by id or name. It needs ClaimsRead
// and GroupsRead.
func (s *Service) GroupsWithClaim(ctx context.Context, actor Actor, claim string) ([]store.Group, error) {
	one, err := s.Claim(ctx, actor, claim)
	if err != nil {
		return nil, err
	}
	if err := s.Authorize(ctx, actor, GroupsRead); err != nil {
		return nil, err
	}
	groups, err := s.Store.GroupsWithClaim(ctx, one.ID)
	return groups, fault(err)
}

// UpdateClaim changes a claim. It needs ClaimsWrite, the claim's right before and after,
// and all rights of the groups that give the claim and of their members. When the right
// changes, it revokes the members' tokens. ErrClaimsTooLarge: the claims of a group or of a
// member would not fit into a token.
func (s *Service) UpdateClaim(ctx context.Context, actor Actor, claim string, p ClaimPatch) (store.Claim, error) {
	const action = "claim.update"
	var one store.Claim
	err := s.changeClaim(ctx, actor, action, claim, func(c *change, found store.Claim, groups []store.Group) error {
		one = found
		if p.Version != nil && *p.Version != one.Version {
			return ErrChangedMeanwhile
		}
		if err := patchClaim(&one, p); err != nil {
			return err
		}
		if one == found {
			return errNothing
		}
		before, after := Right{found.ShortName, found.Value}, Right{one.ShortName, one.Value}
		if !c.rights.Holds(after) {
			return ErrBeyondOwnRights
		}
		if after != before {
			for _, g := range groups {
				if err := c.revokeMembers(ctx, g.ID, "rights_changed"); err != nil {
					return err
				}
			}
		}
		one.UpdatedAt = c.now
		if err := nameTaken("claim", c.r.UpdateClaim(ctx, one)); err != nil {
			return err
		}
		one.Version++
		if after != before {
			for _, g := range groups {
				if err := c.fitGroup(ctx, g); err != nil {
					return err
				}
			}
		}
		return c.note(ctx, action, one.ID, "%s %s=%s, was %s %s=%s", one.Name, one.ShortName, one.Value, found.Name, found.ShortName, found.Value)
	})
	return one, err
}

// DeleteClaim removes a claim and revokes the tokens of the users who held it. It needs
// ClaimsWrite, the claim's right, and all rights of the groups that give it and of their
// members.
func (s *Service) DeleteClaim(ctx context.Context, actor Actor, claim string) error {
	const action = "claim.delete"
	return s.changeClaim(ctx, actor, action, claim, func(c *change, one store.Claim, groups []store.Group) error {
		for _, g := range groups {
			if err := c.revokeMembers(ctx, g.ID, "rights_changed"); err != nil {
				return err
			}
		}
		if err := c.r.DeleteClaim(ctx, one.ID); err != nil {
			return err
		}
		return c.note(ctx, action, one.ID, "%s %s=%s", one.Name, one.ShortName, one.Value)
	})
}

// changeClaim is change for a claim that exists and whose right the actor holds. f is
// given the groups that give the claim; the actor holds all rights of theirs and of their
// members.
func (s *Service) changeClaim(ctx context.Context, actor Actor, action, ref string, f func(*change, store.Claim, []store.Group) error) error {
	return s.change(ctx, actor, ClaimsWrite, action, ref, func(c *change) error {
		one, err := findClaim(ctx, c.r, ref)
		if err != nil {
			return err
		}
		if !c.rights.Holds(Right{one.ShortName, one.Value}) {
			return ErrBeyondOwnRights
		}
		groups, err := c.r.GroupsWithClaim(ctx, one.ID)
		if err != nil {
			return err
		}
		for _, g := range groups {
			if err := c.withinGroup(ctx, g); err != nil {
				return err
			}
		}
		return f(c, one, groups)
	})
}

// createClaim adds a claim whose right the actor holds, and sets its id and times.
func (c *change) createClaim(ctx context.Context, one *store.Claim) (err error) {
	if !c.rights.Holds(Right{one.ShortName, one.Value}) {
		return ErrBeyondOwnRights
	}
	if one.ID, err = c.s.newID(); err != nil {
		return err
	}
	one.CreatedAt, one.UpdatedAt, one.Version = c.now, c.now, 1
	if err := nameTaken("claim", c.r.CreateClaim(ctx, *one)); err != nil {
		return err
	}
	return c.note(ctx, "claim.create", one.ID, "%s %s=%s", one.Name, one.ShortName, one.Value)
}

// findClaim returns the claim with the id or name.
func findClaim(ctx context.Context, r store.Claims, ref string) (store.Claim, error) {
	fold := func(s string) (string, error) { return names.Key("claim", s) }
	one, err := find(ctx, ref, r.Claim, r.ClaimByName, fold)
	if errors.Is(err, store.ErrNotFound) {
		err = ErrClaimNotFound
	}
	return one, err
}
