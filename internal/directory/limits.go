package directory

import (
	"context"
	"errors"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/store"
)

// LimitRights returns what an actor may do with limits.
func (s *Service) LimitRights(actor Actor) limit.Rights { return limitRights{s, actor} }

type limitRights struct {
	service *Service
	actor   Actor
}

func (r limitRights) MaySeeLimits(ctx context.Context) error {
	return r.service.Authorize(ctx, r.actor, LimitsRead)
}

func (r limitRights) MayLiftLimits(ctx context.Context) error {
	return r.service.Authorize(ctx, r.actor, LimitsWrite)
}

func (r limitRights) MaySeeLimitsOf(ctx context.Context, user string) (store.User, error) {
	return r.service.AuthorizeOn(ctx, r.actor, LimitsRead, user)
}

func (r limitRights) MayLiftLimitsOf(ctx context.Context, user string) (store.User, error) {
	return r.service.AuthorizeOn(ctx, r.actor, LimitsWrite, user)
}

func (r limitRights) UserByID(ctx context.Context, id string) (store.User, error) {
	u, err := r.service.Store.User(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return store.User{}, err
	}
	return withoutHash(u), fault(err)
}

func (r limitRights) Actor() (id, address string) { return r.actor.ID, r.actor.Address }
