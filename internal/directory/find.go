package directory

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/store"
)

// FindUsers returns the users whose username begins with the text, or whose e-mail address or
// id it is, in the order of their usernames; all users for an empty text. Usernames are
// compared as Users does, addresses by names.EmailKey. Page.Prefix is not looked at. It needs
// UsersRead.
func (s *Service) FindUsers(ctx context.Context, actor Actor, text string, p Page) (List[store.User], error) {
	if err := s.Authorize(ctx, actor, UsersRead); err != nil {
		return List[store.User]{}, err
	}
	p, err := p.checked()
	if err != nil {
		return List[store.User]{}, err
	}
	// What cannot begin a username may still be an address.
	key, notName := names.UsernameKey(text)
	var found []store.User
	if text == "" || notName == nil {
		if found, err = s.Store.Users(ctx, p.stored(key)); err != nil {
			return List[store.User]{}, fault(err)
		}
	}
	exact, err := s.usersOf(ctx, text)
	if err != nil {
		return List[store.User]{}, fault(err)
	}
	for _, u := range exact {
		before := p.After != "" && (u.NameKey == p.After || u.NameKey < p.After != p.Descending)
		if !before && !slices.ContainsFunc(found, func(other store.User) bool { return other.ID == u.ID }) {
			found = append(found, u)
		}
	}
	slices.SortFunc(found, func(a, b store.User) int {
		if p.Descending {
			a, b = b, a
		}
		return cmp.Compare(a.NameKey, b.NameKey)
	})
	for i := range found {
		found[i] = withoutHash(found[i])
	}
	return firstOf(found, p.Limit, func(u store.User) string { return u.NameKey }), nil
}

// usersOf returns the users whose e-mail address or id the text is: store.MaxNamed at most, of
// whom more than one has an address only where a version did not refuse it.
func (s *Service) usersOf(ctx context.Context, text string) ([]store.User, error) {
	if id, err := uuid.Parse(text); err == nil {
		u, err := s.Store.User(ctx, id.String())
		if errors.Is(err, store.ErrNotFound) {
			return nil, nil
		}
		return []store.User{u}, err
	}
	address, err := names.Email(text)
	if err != nil || address == "" {
		return nil, nil
	}
	key := names.EmailKey(address)
	found, err := s.Store.UsersNamed(ctx, "", emailMark, digestOfMark("email", key))
	// A version that knows nothing of the mark may have given the user another address.
	return slices.DeleteFunc(found, func(u store.User) bool { return names.EmailKey(u.Email) != key }), err
}
