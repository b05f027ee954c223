package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/watchword-auth/watchword/internal/initfile"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// lastInitFile is the setting with the digest of the init file that was applied last.
const lastInitFile = "init_file"

// An InitResult counts what an init file added.
type InitResult struct {
	Claims, Groups, Users int
	Links                 int // memberships and claims of groups
}

// ApplyInitFile adds the claims, groups and users of an init file (package initfile)
// that are not there yet, and the links between them. A group's claims and a user's
// groups may also be ones that only the database has.
//
//   - The file is checked as a whole, with the lines of what is wrong, and applied as a
//     whole. Any number of replicas may apply it, at once and again.
//   - What a file has asked for once is remembered and is not done again. So whatever was
//     changed or removed in the database since then stays as it is, and only what the
//     file newly asks for is added.
//   - The memory outlives the entry in the file. Replicas may start with different files;
//     if the file that lacks an entry made it forgotten, the other file would bring back
//     what was removed meanwhile.
//   - A user who exists is not changed, least of all the password. Nothing is removed.
//   - A claim that is new in the file, or has another right there than before, is an
//     error if the database has it with another right.
func (s *Service) ApplyInitFile(ctx context.Context, path string) (InitResult, error) {
	data, mode, err := initfile.Read(path)
	if err != nil {
		return InitResult{}, problem.New(problem.Invalid, "init_file_unreadable", "the init file %s cannot be read", path).Because(err)
	}
	file, err := initfile.Parse(data, right)
	if err != nil {
		return InitResult{}, problem.New(problem.Invalid, "init_file_invalid", "the init file %s is wrong: %v", path, err)
	}
	if file.HasSecrets() && mode&0o044 != 0 {
		s.Logger.WarnContext(ctx, "the init file holds passwords and others on this machine can read it; deny them (chmod 600)",
			"file", path, "mode", mode.String())
	}
	if last, err := s.Store.Setting(ctx, lastInitFile); last == digestOf(file) || err != nil && !errors.Is(err, store.ErrNotFound) {
		return InitResult{}, fault(err)
	}
	hashes, err := s.hashMissing(ctx, file)
	if err != nil {
		return InitResult{}, err
	}
	var done applying
	err = s.retryConflicts(func() error {
		return s.change(ctx, System(), Superuser, "init", path, func(c *change) error {
			done = applying{change: c, file: file, hashes: hashes}
			return done.apply(ctx)
		})
	})
	var wrong *initfile.Error
	if errors.As(err, &wrong) {
		return InitResult{}, problem.New(problem.Conflict, "init_file_conflict", "the init file %s cannot be applied: %v", path, wrong)
	}
	if err != nil {
		return InitResult{}, err
	}
	for _, one := range done.skipped {
		s.Logger.WarnContext(ctx, "the init file asks for a link whose one end was removed from the database; it is not made",
			"file", path, "entry", one.Error())
	}
	return done.added, nil
}

// hashMissing hashes the passwords of the users who will be made, by name key. It does so
// before the transaction because it takes long.
func (s *Service) hashMissing(ctx context.Context, file *initfile.File) (map[string]string, error) {
	hashes := make(map[string]string)
	for _, u := range file.Users {
		if u.Password == "" {
			continue
		}
		_, err := UserNamed(ctx, s.Store, u.Key)
		if errors.Is(err, store.ErrNotFound) {
			_, err = s.Store.Setting(ctx, memory("user", u.Key))
		}
		if errors.Is(err, store.ErrNotFound) {
			hashes[u.Key], err = s.hash(ctx, u.Password)
		}
		if err != nil {
			return nil, fault(err)
		}
	}
	return hashes, nil
}

// applying is one application of a file, inside its transaction.
type applying struct {
	*change
	file    *initfile.File
	hashes  map[string]string
	added   InitResult
	skipped []*initfile.Error // links of what was removed
}

func (a *applying) apply(ctx context.Context) error {
	for _, one := range a.file.Claims {
		if err := a.claim(ctx, one); err != nil {
			return err
		}
	}
	for _, g := range a.file.Groups {
		if err := a.group(ctx, g); err != nil {
			return err
		}
	}
	for _, u := range a.file.Users {
		if err := a.user(ctx, u); err != nil {
			return err
		}
	}
	return a.r.PutSetting(ctx, lastInitFile, digestOf(a.file))
}

// remember notes what the file says under a name of memory, and returns what it said
// before, if it did.
func (a *applying) remember(ctx context.Context, name, says string) (was string, before bool, err error) {
	was, err = a.r.Setting(ctx, name)
	before = err == nil
	if before && was == says || err != nil && !errors.Is(err, store.ErrNotFound) {
		return was, before, err
	}
	return was, before, a.r.PutSetting(ctx, name, says)
}

func (a *applying) claim(ctx context.Context, one initfile.Claim) error {
	was, before, err := a.remember(ctx, memory("claim", one.Key), rightOf(one))
	if err != nil || before && was == rightOf(one) {
		return err
	}
	found, err := a.r.ClaimByName(ctx, one.Key)
	if errors.Is(err, store.ErrNotFound) {
		if before {
			return initfile.Errorf(one.Line, "the claim %q was %s in this file and has been removed since; give the new one another name", one.Name, was)
		}
		a.added.Claims++
		return a.createClaim(ctx, &store.Claim{Name: one.Name, NameKey: one.Key, ShortName: one.ShortName, Value: one.Value})
	}
	if err == nil && (found.ShortName != one.ShortName || found.Value != one.Value) {
		return initfile.Errorf(one.Line, "the claim %q is there already, as %s=%s", one.Name, found.ShortName, found.Value)
	}
	return err
}

func (a *applying) group(ctx context.Context, g initfile.Group) error {
	_, before, err := a.remember(ctx, memory("group", g.Key), "")
	if err != nil {
		return err
	}
	found, err := a.r.GroupByName(ctx, g.Key)
	removed := errors.Is(err, store.ErrNotFound)
	if removed && !before {
		found, removed = store.Group{Name: g.Name, NameKey: g.Key}, false
		a.added.Groups++
		err = a.createGroup(ctx, &found)
	}
	if err != nil && !removed {
		return err
	}
	return a.links(ctx, "link", g.Key, g.Claims, func(l initfile.Link) error {
		if removed {
			a.skip(l, "group", g.Name)
			return nil
		}
		one, linked, err := a.linked(ctx, found, l.Name)
		if errors.Is(err, ErrClaimNotFound) {
			return a.missing(l, "claim", slices.ContainsFunc(a.file.Claims, func(c initfile.Claim) bool { return c.Key == l.Key }))
		}
		if err != nil || linked {
			return err
		}
		a.added.Links++
		return a.link(ctx, found, one)
	})
}

func (a *applying) user(ctx context.Context, u initfile.User) error {
	_, before, err := a.remember(ctx, memory("user", u.Key), "")
	if err != nil {
		return err
	}
	found, err := UserNamed(ctx, a.r, u.Key)
	if err == nil && found.NameKey != u.Key && slices.ContainsFunc(a.file.Users, func(o initfile.User) bool { return o.Key == found.NameKey }) {
		err = store.ErrNotFound // the other entry's; a version that compared keys alone made a user of each
	}
	removed := errors.Is(err, store.ErrNotFound)
	if removed && !before {
		removed = false
		found = store.User{
			Username: u.Username, NameKey: u.Key, Email: u.Email, FirstName: u.FirstName, LastName: u.LastName, PasswordHash: u.PasswordHash,
		}
		if u.Password != "" {
			if found.PasswordHash = a.hashes[u.Key]; found.PasswordHash == "" {
				return ErrChangedMeanwhile // the user was there in hashMissing, and is not any more
			}
		}
		a.added.Users++
		err = a.createUser(ctx, &found)
		// A conflict in the store is another replica's, and the file is applied again.
		if p := problem.From(err); err != nil && !errors.Is(err, store.ErrConflict) && (p.Kind == problem.Conflict || p.Kind == problem.Invalid) {
			return initfile.Errorf(u.Line, "the user %q cannot be made: %s", u.Username, p.Detail)
		}
	}
	if err != nil && !removed {
		return err
	}
	return a.links(ctx, "member", u.Key, u.Groups, func(l initfile.Link) error {
		if removed {
			a.skip(l, "user", u.Username)
			return nil
		}
		g, member, err := a.membership(ctx, found, l.Name)
		if errors.Is(err, ErrGroupNotFound) {
			return a.missing(l, "group", slices.ContainsFunc(a.file.Groups, func(g initfile.Group) bool { return g.Key == l.Key }))
		}
		if err != nil || member {
			return err
		}
		a.added.Links++
		return a.join(ctx, found, g)
	})
}

// links calls f for the links that no file has asked for before.
func (a *applying) links(ctx context.Context, kind, from string, links []initfile.Link, f func(initfile.Link) error) error {
	for _, l := range links {
		_, before, err := a.remember(ctx, memory(kind, from, l.Key), "")
		if err != nil {
			return err
		}
		if before {
			continue
		}
		if err := f(l); err != nil {
			return err
		}
	}
	return nil
}

// missing is about a link whose target the database does not have. If the file asks for
// the target too, then it was removed.
func (a *applying) missing(l initfile.Link, what string, inFile bool) error {
	if inFile {
		a.skip(l, what, l.Name)
		return nil
	}
	return initfile.Errorf(l.Line, "there is no %s %q, neither in this file nor in the database", what, l.Name)
}

// skip notes a link that is not made because one of its ends was removed.
func (a *applying) skip(l initfile.Link, what, name string) {
	a.skipped = append(a.skipped, initfile.Errorf(l.Line, "the %s %q was removed", what, name))
}

// digestOf stands for all that the file asks for, so that an unchanged file costs one
// query. It leaves out the passwords, which could be guessed from it.
func digestOf(f *initfile.File) string {
	var all []string
	for _, one := range f.Claims {
		all = append(all, memory("claim", one.Key), rightOf(one))
	}
	for _, g := range f.Groups {
		all = append(all, memory("group", g.Key))
		for _, l := range g.Claims {
			all = append(all, memory("link", g.Key, l.Key))
		}
	}
	for _, u := range f.Users {
		all = append(all, memory("user", u.Key))
		for _, l := range u.Groups {
			all = append(all, memory("member", u.Key, l.Key))
		}
	}
	return digest(all)
}

func rightOf(c initfile.Claim) string { return c.ShortName + "=" + c.Value }

// memory is the name of the setting that remembers that an init file has asked for
// something. Only a claim's setting has a value: its right as the file said it.
func memory(kind string, keys ...string) string {
	return lastInitFile + "/" + kind + "/" + digest(keys)
}

func digest(texts []string) string {
	h := sha256.New()
	for _, text := range texts {
		fmt.Fprintf(h, "%q ", text)
	}
	return hex.EncodeToString(h.Sum(nil))
}
