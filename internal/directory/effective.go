package directory

import (
	"cmp"
	"context"
	"slices"

	"github.com/watchword-auth/watchword/internal/store"
)

// An EffectiveClaim is what a user's tokens say under a name: one value, and the groups that
// give it, in the order of their names.
type EffectiveClaim struct {
	ShortName, Value string
	Groups           []store.Group
}

// EffectiveClaims returns what the tokens say of a user who is named by id or name, and why,
// ordered by short name and value. It needs UsersRead and, because it shows what groups give,
// GroupsRead; neither if the user is the actor.
func (s *Service) EffectiveClaims(ctx context.Context, actor Actor, user string) ([]EffectiveClaim, error) {
	u, err := s.User(ctx, actor, user)
	if err != nil {
		return nil, err
	}
	permission := GroupsRead
	if u.ID == actor.ID {
		permission = own
	}
	if err := s.Authorize(ctx, actor, permission); err != nil {
		return nil, err
	}
	grants, err := s.Store.GrantsOfUser(ctx, u.ID)
	if err != nil {
		return nil, fault(err)
	}
	var claims []EffectiveClaim
	for _, g := range grants {
		last := len(claims) - 1
		if last < 0 || claims[last].ShortName != g.Claim.ShortName || claims[last].Value != g.Claim.Value {
			claims = append(claims, EffectiveClaim{ShortName: g.Claim.ShortName, Value: g.Claim.Value})
			last++
		}
		// Two claims may give the same, through one group.
		if c := &claims[last]; !slices.Contains(c.Groups, g.Group) {
			c.Groups = append(c.Groups, g.Group)
		}
	}
	for _, c := range claims {
		slices.SortFunc(c.Groups, func(a, b store.Group) int { return cmp.Compare(a.NameKey, b.NameKey) })
	}
	return claims, nil
}
