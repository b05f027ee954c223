package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

var (
	// ErrNameOfStronger: a user who holds rights beyond the actor's has the name, as
	// username, full name or e-mail address, or one that looks like it.
	ErrNameOfStronger = problem.New(problem.Denied, "name_of_stronger",
		"somebody whose rights your own account does not hold has this name, or one that looks like it")

	errEmailTaken = problem.New(problem.Conflict, "email_taken", "another user has this e-mail address")
	errNameTaken  = problem.New(problem.Conflict, "username_taken", "there is a user of this name")
	errLooksTaken = problem.New(problem.Conflict, "username_confusable", "another user has a username that looks like this one")
	errNoEmail    = problem.New(problem.Invalid, "email_missing", "a user without an e-mail address has none that could be verified")
)

// The kinds of marks. Those of names have the version of package names, so that marks of
// another version are not taken for marks of this one.
var (
	emailMark    = "email"
	foldMark     = fmt.Sprint("name/", names.Version) // the username, however it is written
	usernameMark = fmt.Sprint("username/", names.Version)
	fullNameMark = fmt.Sprint("full_name/", names.Version)
	addressMark  = fmt.Sprint("address/", names.Version) // what an e-mail address looks like
)

// exclusive are the marks that two users cannot have, and that nobody else gets before the
// tokens have expired that say who had them.
var exclusive = []string{emailMark, foldMark, usernameMark}

// markPage is how many users CheckUsers writes the marks of in one transaction.
const markPage = 50

// MaxClashes bounds what CheckUsers returns.
const MaxClashes = 1000

// marksOf returns by what a user is recognised.
func marksOf(u store.User) []store.Mark {
	var all []store.Mark
	add := func(kind, space string, texts ...string) {
		for _, text := range texts {
			all = append(all, store.Mark{Kind: kind, Digest: digestOfMark(space, text), UserID: u.ID})
		}
	}
	if u.Email != "" {
		add(emailMark, "email", names.EmailKey(u.Email))
	}
	if u.NameKey != "" {
		add(foldMark, "name", names.Fold(u.NameKey))
	}
	add(usernameMark, "look", names.Looks(u.Username)...)
	add(fullNameMark, "look", names.Looks(u.FirstName+" "+u.LastName)...)
	add(addressMark, "look", names.Looks(u.Email)...)
	return all
}

func digestOfMark(space, text string) string {
	digest := sha256.Sum256([]byte(space + " " + text))
	return hex.EncodeToString(digest[:])
}

// UserNamed returns the user of a username's key, or store.ErrNotFound: the one who has this
// very key, and otherwise the only one whose username has the same fold. There is more than
// one only where a version that compared keys alone has made them; each of these answers to
// their own key.
func UserNamed(ctx context.Context, r store.Records, key string) (store.User, error) {
	fold := names.Fold(key)
	found, err := r.UsersNamed(ctx, key, foldMark, digestOfMark("name", fold))
	if err != nil {
		return store.User{}, err
	}
	if i := slices.IndexFunc(found, func(u store.User) bool { return u.NameKey == key }); i >= 0 {
		return found[i], nil
	}
	// A version that knows nothing of the mark may have given the user another name.
	found = slices.DeleteFunc(found, func(u store.User) bool { return names.Fold(u.NameKey) != fold })
	if len(found) != 1 {
		return store.User{}, store.ErrNotFound
	}
	return found[0], nil
}

// among reports whether a list has a mark of the same kind and digest.
func among(m store.Mark, list []store.Mark) bool {
	return slices.ContainsFunc(list, func(other store.Mark) bool { return m.Kind == other.Kind && m.Digest == other.Digest })
}

// identify makes a user recognisable as after. before is the user until now. It refuses
// what another user has, and the names of those who are stronger than the actor. What the
// user had before is not asked, so that users who had the same before it was refused can
// be changed.
func (c *change) identify(ctx context.Context, before, after store.User) error {
	had, want := marksOf(before), marksOf(after)
	if before.Username != after.Username && after.Username != "" {
		if err := names.CheckScripts(after.Username); err != nil {
			return err
		}
	}
	for _, m := range want {
		if among(m, had) {
			continue
		}
		if err := c.mayHave(ctx, m); err != nil {
			return err
		}
	}
	return c.s.setMarks(ctx, c.r, after.ID, had, want, c.now)
}

// mayHave returns why the user of a new mark may not have it.
func (c *change) mayHave(ctx context.Context, m store.Mark) error {
	if slices.Contains(exclusive, m.Kind) {
		switch taken, err := c.r.TakenMark(ctx, m.Kind, m.Digest, m.UserID, c.now); {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return err
		case !taken.Until.IsZero():
			return problem.New(problem.Conflict, "name_reserved",
				"tokens may be valid that give this username or e-mail address to somebody who had it; it is free from %s on",
				taken.Until.UTC().Truncate(time.Second).Add(time.Second).Format(time.RFC3339))
		case m.Kind == emailMark:
			return errEmailTaken
		case m.Kind == foldMark:
			return errNameTaken
		default:
			return errLooksTaken
		}
	}
	err := within(ctx, c.rights, func(ctx context.Context, digest string) ([]store.Claim, error) {
		return c.r.ClaimsOfMarked(ctx, digest, m.UserID)
	}, m.Digest)
	if errors.Is(err, ErrBeyondOwnRights) {
		err = ErrNameOfStronger
	}
	return err
}

// setMarks makes want the marks of a user. An exclusive one that the user gives up, of had
// or of those that are stored, is kept until every token has expired that names the user
// by it.
func (s *Service) setMarks(ctx context.Context, r store.Records, userID string, had, want []store.Mark, now time.Time) error {
	stored, err := r.MarksOfUser(ctx, userID)
	if err != nil {
		return err
	}
	for _, m := range want {
		if !slices.Contains(stored, m) {
			if err := r.PutMark(ctx, m); err != nil {
				return err
			}
		}
	}
	var until time.Time
	for _, m := range append(had, stored...) {
		switch {
		case among(m, want) || !m.Until.IsZero():
		case !slices.Contains(exclusive, m.Kind):
			err = r.DeleteMark(ctx, m.Kind, m.Digest, userID)
		default:
			if until.IsZero() {
				if until, err = s.Revocations.Expiry(ctx, r); err != nil {
					return err
				}
			}
			m.UserID, m.Until = userID, until
			err = r.PutMark(ctx, m)
		}
		if err != nil {
			return err
		}
	}
	if until.IsZero() {
		return nil
	}
	// Here, so that there are never many of them.
	_, err = r.DeleteExpiredMarks(ctx, now, 100)
	return err
}

// A Clash is a user with an e-mail address, or with a username that looks like one, that
// another user has, too.
type Clash struct {
	User  store.User
	What  string // "email" or "username"
	Other string // the other user's id
}

// CheckUsers notes by what users are recognised, and returns those who have an e-mail
// address, or a username that looks like one, that another user has as well: the users of a
// version that did not refuse it. With all it checks all users, and otherwise those whom no
// replica has checked. It returns MaxClashes at most.
func (s *Service) CheckUsers(ctx context.Context, all bool) ([]Clash, error) {
	var clashes []Clash
	after := ""
	for {
		var users []store.User
		var err error
		if all {
			users, err = s.Store.Users(ctx, store.Page{After: after, Limit: markPage})
		} else {
			users, err = s.Store.UsersWithoutMark(ctx, usernameMark, after, markPage)
		}
		if err != nil {
			return clashes, fault(err)
		}
		if len(users) == 0 {
			return clashes, nil
		}
		var found []Clash
		err = s.Store.Update(ctx, func(r store.Records) (err error) {
			found, err = s.checkUsers(ctx, r, users)
			return err
		})
		if err != nil {
			return clashes, fault(err)
		}
		clashes = append(clashes, found...)
		clashes = clashes[:min(len(clashes), MaxClashes)]
		if after = users[len(users)-1].ID; all {
			after = users[len(users)-1].NameKey
		}
	}
}

// checkUsers is CheckUsers for a page of users, who may have changed since it was read.
func (s *Service) checkUsers(ctx context.Context, r store.Records, users []store.User) ([]Clash, error) {
	var clashes []Clash
	now := s.Now()
	for _, u := range users {
		u, err := r.User(ctx, u.ID)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		marks := marksOf(u)
		if err := s.setMarks(ctx, r, u.ID, nil, marks, now); err != nil {
			return nil, err
		}
		for what, kind := range map[string]string{"email": emailMark, "username": usernameMark} {
			for _, m := range marks {
				if m.Kind != kind {
					continue
				}
				other, err := r.TakenMark(ctx, m.Kind, m.Digest, u.ID, now)
				if errors.Is(err, store.ErrNotFound) || err == nil && !other.Until.IsZero() {
					continue
				}
				if err != nil {
					return nil, err
				}
				clashes = append(clashes, Clash{User: withoutHash(u), What: what, Other: other.UserID})
				break
			}
		}
	}
	return clashes, nil
}
