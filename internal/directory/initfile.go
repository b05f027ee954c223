package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// maxInitFile bounds an init file, in bytes.
const maxInitFile = 4 << 20

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
// applied as a whole. It may be applied again, by any number of replicas at once:
// it adds what is missing, also a link that somebody has removed since, but
// changes no user who is there, least of all his password, and removes nothing. A
// claim that is there with another right is an error.
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
	hashes, err := s.hashMissing(ctx, file)
	if err != nil {
		return InitResult{}, err
	}
	var result InitResult
	err = s.meet(func() error {
		return s.change(ctx, System(), Superuser, "init", path, func(c *change) error {
			a := applying{change: c, hashes: hashes}
			if err := a.apply(ctx, file); err != nil {
				return err
			}
			if result = a.added; result == (InitResult{}) {
				return errNothing
			}
			return nil
		})
	})
	var line *lineError
	if errors.As(err, &line) {
		return InitResult{}, problem.New(problem.Conflict, "init_file_conflict", "the init file %s cannot be applied: %v", path, line)
	}
	if err != nil {
		return InitResult{}, err
	}
	return result, nil
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

// hashMissing hashes the passwords of those who are not there yet, by name key,
// before the transaction because it takes long.
func (s *Service) hashMissing(ctx context.Context, file *initFile) (map[string]string, error) {
	hashes := make(map[string]string)
	for _, u := range file.users {
		if u.password == "" {
			continue
		}
		_, err := s.Store.UserByName(ctx, u.NameKey)
		if errors.Is(err, store.ErrNotFound) {
			hashes[u.NameKey], err = s.hash(ctx, u.password)
		}
		if err != nil {
			return nil, fault(err)
		}
	}
	return hashes, nil
}

// applying is one application inside its transaction.
type applying struct {
	*change
	hashes map[string]string
	added  InitResult
}

func (a *applying) apply(ctx context.Context, file *initFile) error {
	for _, one := range file.claims {
		if err := a.claim(ctx, one); err != nil {
			return err
		}
	}
	for _, g := range file.groups {
		if err := a.group(ctx, g); err != nil {
			return err
		}
	}
	for _, u := range file.users {
		if err := a.user(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

func (a *applying) claim(ctx context.Context, one initClaim) error {
	found, err := a.r.ClaimByName(ctx, one.NameKey)
	if errors.Is(err, store.ErrNotFound) {
		a.added.Claims++
		return a.createClaim(ctx, &one.Claim)
	}
	if err == nil && (found.ShortName != one.ShortName || found.Value != one.Value) {
		return at(one.line, "the claim %q is there already, as %s=%s", one.Name, found.ShortName, found.Value)
	}
	return err
}

func (a *applying) group(ctx context.Context, g initGroup) error {
	found, err := a.r.GroupByName(ctx, g.NameKey)
	if errors.Is(err, store.ErrNotFound) {
		found = g.Group
		a.added.Groups++
		err = a.createGroup(ctx, &found)
	}
	if err != nil {
		return err
	}
	for _, ref := range g.claims {
		one, linked, err := a.linked(ctx, found, ref.name)
		if errors.Is(err, ErrClaimNotFound) {
			return at(ref.line, "there is no claim %q, neither in this file nor in the database", ref.name)
		}
		if err != nil {
			return err
		}
		if linked {
			continue
		}
		a.added.Links++
		if err := a.link(ctx, found, one); err != nil {
			return err
		}
	}
	return nil
}

func (a *applying) user(ctx context.Context, u initUser) error {
	found, err := a.r.UserByName(ctx, u.NameKey)
	if errors.Is(err, store.ErrNotFound) {
		found = u.User
		if u.password != "" {
			if found.PasswordHash = a.hashes[u.NameKey]; found.PasswordHash == "" {
				return ErrChangedMeanwhile // deleted since his password could have been hashed
			}
		}
		a.added.Users++
		err = a.createUser(ctx, &found)
	}
	if err != nil {
		return err
	}
	for _, ref := range u.groups {
		g, member, err := a.membership(ctx, found, ref.name)
		if errors.Is(err, ErrGroupNotFound) {
			return at(ref.line, "there is no group %q, neither in this file nor in the database", ref.name)
		}
		if err != nil {
			return err
		}
		if member {
			continue
		}
		a.added.Links++
		if err := a.join(ctx, found, g); err != nil {
			return err
		}
	}
	return nil
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
