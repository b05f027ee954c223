package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

const (
	// maxInitFile bounds an init file, in bytes.
	maxInitFile = 4 << 20
	// lastInitFile is the setting with the digest of the file that was applied last.
	lastInitFile = "init_file"
)

// An InitResult counts what an init file added.
type InitResult struct {
	Claims, Groups, Users int
	Links                 int // memberships and claims of groups
}

// ApplyInitFile adds the claims, groups and users of a YAML file that are not
// there yet, and the links between them:
//
//	claims:
//	  - {name: Log reader, short_name: log, value: r}
//	groups:
//	  - {name: Support, claims: [Log reader]}
//	users:
//	  - username: alice
//	    password: …               # or password_hash: an Argon2id PHC string
//	    email: alice@example.org  # as first_name and last_name: may be left out
//	    groups: [Support]
//
// A group's claims and a user's groups may also be ones that only the database
// has. The file is checked as a whole, with the lines of what is wrong, and
// applied as a whole. It may be applied again, by any number of replicas at once.
// What it has asked for once is remembered and is not done again, so what somebody
// changed or removed in the database since stays as it is; what the file asks for
// anew is added. What has left the file is not forgotten: of replicas that start with
// different files, the one whose file lacks an entry would have the other one bring back
// what was removed in the meantime. It changes no user who is there, least of all his password, and
// removes nothing. A claim that the file newly says, or says otherwise than before,
// is an error if the database has it with another right.
func (s *Service) ApplyInitFile(ctx context.Context, path string) (InitResult, error) {
	data, mode, err := readInitFile(path)
	if err != nil {
		return InitResult{}, problem.New(problem.Invalid, "init_file_unreadable", "the init file %s cannot be read", path).Because(err)
	}
	file, err := parseInitFile(data)
	if err != nil {
		return InitResult{}, problem.New(problem.Invalid, "init_file_invalid", "the init file %s is wrong: %v", path, err)
	}
	if file.secret() && mode&0o044 != 0 {
		s.Logger.WarnContext(ctx, "the init file holds passwords and others on this machine can read it; take the right from them (chmod 600)",
			"file", path, "mode", mode.String())
	}
	if last, err := s.Store.Setting(ctx, lastInitFile); last == file.digest() || err != nil && !errors.Is(err, store.ErrNotFound) {
		return InitResult{}, fault(err)
	}
	hashes, err := s.hashMissing(ctx, file)
	if err != nil {
		return InitResult{}, err
	}
	var done applying
	err = s.meet(func() error {
		return s.change(ctx, System(), Superuser, "init", path, func(c *change) error {
			done = applying{change: c, file: file, hashes: hashes}
			return done.apply(ctx)
		})
	})
	var line *lineError
	if errors.As(err, &line) {
		return InitResult{}, problem.New(problem.Conflict, "init_file_conflict", "the init file %s cannot be applied: %v", path, line)
	}
	if err != nil {
		return InitResult{}, err
	}
	for _, one := range done.skipped {
		s.Logger.WarnContext(ctx, "the init file asks for more of what was removed from the database, where it stays removed",
			"file", path, "entry", one.Error())
	}
	return done.added, nil
}

func readInitFile(path string) (data []byte, mode os.FileMode, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	data, err = io.ReadAll(io.LimitReader(f, maxInitFile+1))
	if err == nil && len(data) > maxInitFile {
		err = fmt.Errorf("it is larger than %d bytes", maxInitFile)
	}
	return data, info.Mode().Perm(), err
}

// hashMissing hashes the passwords of those who will be made, by name key, before
// the transaction because it takes long.
func (s *Service) hashMissing(ctx context.Context, file *initFile) (map[string]string, error) {
	hashes := make(map[string]string)
	for _, u := range file.users {
		if u.password == "" {
			continue
		}
		_, err := s.Store.UserByName(ctx, u.NameKey)
		if errors.Is(err, store.ErrNotFound) {
			_, err = s.Store.Setting(ctx, memory("user", u.NameKey))
		}
		if errors.Is(err, store.ErrNotFound) {
			hashes[u.NameKey], err = s.hash(ctx, u.password)
		}
		if err != nil {
			return nil, fault(err)
		}
	}
	return hashes, nil
}

// memory is the name of the setting that says that an init file has asked for
// something. Only a claim's has a value: its right as the file said it.
func memory(kind string, names ...string) string {
	return lastInitFile + "/" + kind + "/" + digest(names)
}

func digest(names []string) string {
	h := sha256.New()
	for _, name := range names {
		fmt.Fprintf(h, "%q ", name)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// digest is of all that the file asks for, so that an unchanged file costs one
// look. It leaves out the passwords, which could be guessed from it.
func (f *initFile) digest() string {
	var all []string
	for _, one := range f.claims {
		all = append(all, memory("claim", one.NameKey), one.right())
	}
	for _, g := range f.groups {
		all = append(all, memory("group", g.NameKey))
		for _, ref := range g.claims {
			all = append(all, memory("link", g.NameKey, ref.key("claim")))
		}
	}
	for _, u := range f.users {
		all = append(all, memory("user", u.NameKey))
		for _, ref := range u.groups {
			all = append(all, memory("member", u.NameKey, ref.key("group")))
		}
	}
	return digest(all)
}

func (c initClaim) right() string { return c.ShortName + "=" + c.Value }

// key is the name as it is compared, or what it is if it cannot be a name.
func (r reference) key(what string) string {
	if key, err := nameKey(what, r.name); err == nil {
		return key
	}
	return r.name
}

// applying is one application inside its transaction.
type applying struct {
	*change
	file    *initFile
	hashes  map[string]string
	added   InitResult
	skipped []*lineError // links of what was removed
}

func (a *applying) apply(ctx context.Context) error {
	for _, one := range a.file.claims {
		if err := a.claim(ctx, one); err != nil {
			return err
		}
	}
	for _, g := range a.file.groups {
		if err := a.group(ctx, g); err != nil {
			return err
		}
	}
	for _, u := range a.file.users {
		if err := a.user(ctx, u); err != nil {
			return err
		}
	}
	return a.r.PutSetting(ctx, lastInitFile, a.file.digest())
}

// remember notes what the file says under the name and returns what it said
// before, if it did.
func (a *applying) remember(ctx context.Context, name, says string) (was string, before bool, err error) {
	was, err = a.r.Setting(ctx, name)
	before = err == nil
	if before && was == says || err != nil && !errors.Is(err, store.ErrNotFound) {
		return was, before, err
	}
	return was, before, a.r.PutSetting(ctx, name, says)
}

func (a *applying) claim(ctx context.Context, one initClaim) error {
	was, before, err := a.remember(ctx, memory("claim", one.NameKey), one.right())
	if err != nil || before && was == one.right() {
		return err
	}
	found, err := a.r.ClaimByName(ctx, one.NameKey)
	if errors.Is(err, store.ErrNotFound) {
		if before {
			return at(one.line, "the claim %q was %s in this file and has been removed since; give the new one another name", one.Name, was)
		}
		a.added.Claims++
		return a.createClaim(ctx, &one.Claim)
	}
	if err == nil && (found.ShortName != one.ShortName || found.Value != one.Value) {
		return at(one.line, "the claim %q is there already, as %s=%s", one.Name, found.ShortName, found.Value)
	}
	return err
}

func (a *applying) group(ctx context.Context, g initGroup) error {
	_, before, err := a.remember(ctx, memory("group", g.NameKey), "")
	if err != nil {
		return err
	}
	found, err := a.r.GroupByName(ctx, g.NameKey)
	gone := errors.Is(err, store.ErrNotFound)
	if gone && !before {
		found, gone = g.Group, false
		a.added.Groups++
		err = a.createGroup(ctx, &found)
	}
	if err != nil && !gone {
		return err
	}
	for _, ref := range g.claims {
		_, before, err := a.remember(ctx, memory("link", g.NameKey, ref.key("claim")), "")
		if err != nil {
			return err
		}
		if before {
			continue
		}
		if gone {
			a.skip(ref, "the group %q", g.Name)
			continue
		}
		if err := a.give(ctx, found, ref); err != nil {
			return err
		}
	}
	return nil
}

// give lets the group give a claim.
func (a *applying) give(ctx context.Context, g store.Group, ref reference) error {
	one, linked, err := a.linked(ctx, g, ref.name)
	if errors.Is(err, ErrClaimNotFound) {
		if slices.ContainsFunc(a.file.claims, func(c initClaim) bool { return c.NameKey == ref.key("claim") }) {
			a.skip(ref, "the claim %q", ref.name)
			return nil
		}
		return at(ref.line, "there is no claim %q, neither in this file nor in the database", ref.name)
	}
	if err != nil || linked {
		return err
	}
	a.added.Links++
	return a.link(ctx, g, one)
}

func (a *applying) user(ctx context.Context, u initUser) error {
	_, before, err := a.remember(ctx, memory("user", u.NameKey), "")
	if err != nil {
		return err
	}
	found, err := a.r.UserByName(ctx, u.NameKey)
	gone := errors.Is(err, store.ErrNotFound)
	if gone && !before {
		found, gone = u.User, false
		if u.password != "" {
			if found.PasswordHash = a.hashes[u.NameKey]; found.PasswordHash == "" {
				return ErrChangedMeanwhile // deleted since his password could have been hashed
			}
		}
		a.added.Users++
		err = a.createUser(ctx, &found)
	}
	if err != nil && !gone {
		return err
	}
	for _, ref := range u.groups {
		_, before, err := a.remember(ctx, memory("member", u.NameKey, ref.key("group")), "")
		if err != nil {
			return err
		}
		if before {
			continue
		}
		if gone {
			a.skip(ref, "the user %q", u.Username)
			continue
		}
		if err := a.enter(ctx, found, ref); err != nil {
			return err
		}
	}
	return nil
}

// enter makes the user a member of a group.
func (a *applying) enter(ctx context.Context, u store.User, ref reference) error {
	g, member, err := a.membership(ctx, u, ref.name)
	if errors.Is(err, ErrGroupNotFound) {
		if slices.ContainsFunc(a.file.groups, func(g initGroup) bool { return g.NameKey == ref.key("group") }) {
			a.skip(ref, "the group %q", ref.name)
			return nil
		}
		return at(ref.line, "there is no group %q, neither in this file nor in the database", ref.name)
	}
	if err != nil || member {
		return err
	}
	a.added.Links++
	return a.join(ctx, u, g)
}

// skip notes a link that is not made because one of its ends was removed.
func (a *applying) skip(ref reference, format string, args ...any) {
	a.skipped = append(a.skipped, at(ref.line, format+" was removed", args...))
}

// A lineError says where in the file something is wrong.
type lineError struct {
	line int
	text string
}

func at(line int, format string, args ...any) *lineError {
	return &lineError{line, fmt.Sprintf(format, args...)}
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.text) }
