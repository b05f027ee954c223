package initfile

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/secretfile"
	"github.com/watchword-auth/watchword/internal/yamlfile"
)

// MaxSize bounds an init file, in bytes.
const MaxSize = 4 << 20

// A File is what an init file asks for, checked as far as that is possible without the
// database. Every name has its key (package names).
type File struct {
	Claims []Claim
	Groups []Group
	Users  []User
}

// A Claim asks for a claim.
type Claim struct {
	Line      int
	Name, Key string
	ShortName string
	Value     string // in its normal form
}

// A Group asks for a group that gives claims.
type Group struct {
	Name, Key string
	Claims    []Link
}

// A User asks for a user who is a member of groups.
type User struct {
	Line                                      int
	Username, Key, Email, FirstName, LastName string

	Password     string // prepared; "" if there is none, or a hash
	PasswordHash string
	Groups       []Link
}

// A Link names the claim that a group gives, or the group that a user is in. Its target
// may be in the file, or only in the database.
type Link struct {
	Line      int
	Name, Key string
}

// An Error is one thing that is wrong with a file.
type Error struct {
	Line int
	Text string
}

// Errorf makes an Error.
func Errorf(line int, format string, args ...any) *Error {
	return &Error{line, fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

// Read reads a file of at most MaxSize bytes by the rules of package secretfile, since it
// may hold passwords. It returns the file's permissions.
func Read(path string) (data []byte, mode fs.FileMode, err error) {
	data, info, err := secretfile.Rules{Max: MaxSize}.Read(path)
	if err != nil {
		return nil, 0, err
	}
	return data, info.Mode().Perm(), nil
}

// Parse reads the text of a file. Its error has all that is wrong. right checks the two
// halves of a claim and returns the value in its normal form.
func Parse(data []byte, right func(shortName, value string) (string, error)) (*File, error) {
	root, err := yamlfile.Read(data)
	if err != nil {
		return nil, err
	}
	file := &File{}
	if root == nil {
		return file, nil
	}
	p := parser{right: right}
	m := p.mapping(root, "an init file", "claims", "groups", "users")
	seen := lines{}
	for _, n := range p.list(m["claims"]) {
		c := p.claim(n)
		p.once(n, seen, c.Key, "claim")
		file.Claims = append(file.Claims, c)
	}
	seen = lines{}
	for _, n := range p.list(m["groups"]) {
		g := p.group(n)
		p.once(n, seen, g.Key, "group")
		file.Groups = append(file.Groups, g)
	}
	seen = lines{}
	for _, n := range p.list(m["users"]) {
		u := p.user(n)
		p.once(n, seen, u.Key, "user")
		file.Users = append(file.Users, u)
	}
	if len(p.wrong) > 0 {
		return nil, errors.New(strings.Join(p.wrong, "; "))
	}
	return file, nil
}

// HasSecrets reports whether the file has anything that others should not read.
func (f *File) HasSecrets() bool {
	return slices.ContainsFunc(f.Users, func(u User) bool { return u.Password != "" || u.PasswordHash != "" })
}

// A parser walks the nodes of a file and notes what is wrong.
type parser struct {
	right func(shortName, value string) (string, error)
	wrong []string
}

func (p *parser) fail(line int, format string, args ...any) {
	p.wrong = append(p.wrong, Errorf(line, format, args...).Error())
}

// check notes what is wrong with a node, if anything is.
func (p *parser) check(n *yaml.Node, err error) {
	var readable *problem.Error
	if errors.As(err, &readable) {
		p.fail(n.Line, "%s", readable.Detail)
	} else if err != nil {
		p.fail(n.Line, "%v", err)
	}
}

func (p *parser) claim(n *yaml.Node) Claim {
	m := p.mapping(n, "a claim", "name", "short_name", "value")
	c := Claim{Line: n.Line, ShortName: p.text(m["short_name"])}
	var err error
	if c.Name, c.Key, err = names.New("claim", p.text(m["name"])); err == nil {
		c.Value, err = p.right(c.ShortName, p.text(m["value"]))
	}
	p.check(n, err)
	return c
}

func (p *parser) group(n *yaml.Node) Group {
	m := p.mapping(n, "a group", "name", "claims")
	g := Group{Claims: p.links(m["claims"], "claim")}
	var err error
	g.Name, g.Key, err = names.New("group", p.text(m["name"]))
	p.check(n, err)
	return g
}

func (p *parser) user(n *yaml.Node) User {
	m := p.mapping(n, "a user", "username", "password", "password_hash", "email", "first_name", "last_name", "groups")
	u := User{Line: n.Line, Groups: p.links(m["groups"], "group")}
	var errs [4]error
	u.Username, u.Key, errs[0] = names.Username(p.text(m["username"]))
	u.Email, errs[1] = names.Email(p.text(m["email"]))
	u.FirstName, errs[2] = names.Person(p.text(m["first_name"]))
	u.LastName, errs[3] = names.Person(p.text(m["last_name"]))
	for _, err := range errs {
		p.check(n, err)
	}
	plain, hash := m["password"], m["password_hash"]
	switch {
	case plain != nil && hash != nil:
		p.fail(hash.Line, "a user has password or password_hash, not both")
	case plain != nil:
		var err error
		u.Password, err = password.PrepareNew(p.text(plain))
		p.check(plain, err)
	case hash != nil:
		u.PasswordHash = p.text(hash)
		p.check(hash, password.CheckHash(u.PasswordHash))
	}
	return u
}

// links reads names. One that cannot be a name is its own key, under which nothing will
// be found.
func (p *parser) links(n *yaml.Node, what string) []Link {
	var list []Link
	for _, one := range p.list(n) {
		l := Link{Line: one.Line, Name: p.text(one)}
		var err error
		if l.Key, err = names.Key(what, l.Name); err != nil {
			l.Key = l.Name
		}
		list = append(list, l)
	}
	return list
}

// lines are where names stand, by their keys.
type lines map[string]int

// once notes a name that stands in the file for the second time.
func (p *parser) once(n *yaml.Node, seen lines, key, what string) {
	if key == "" {
		return // the name is wrong, which has been noted
	}
	if line, ok := seen[key]; ok {
		p.fail(n.Line, "the same %s as on line %d", what, line)
	}
	seen[key] = n.Line
}

// mapping returns the values of a mapping by key. what is the mapping in an error.
func (p *parser) mapping(n *yaml.Node, what string, keys ...string) map[string]*yaml.Node {
	m := make(map[string]*yaml.Node)
	fields, ok := yamlfile.Fields(n, keys)
	if !ok {
		p.fail(n.Line, "%s is a mapping with %s", what, strings.Join(keys, ", "))
	}
	for _, f := range fields {
		switch {
		case !f.Known:
			hint := "; it has " + strings.Join(keys, ", ")
			if f.Near != "" {
				hint = yamlfile.DidYouMean(f.Near)
			}
			p.fail(f.Line, "%s has no %s%s", what, shownKey(f.Name), hint)
		case f.First != 0:
			p.fail(f.Line, "%q is set already in line %d", f.Name, f.First)
		case yamlfile.IsNull(f.Value):
			p.fail(f.Value.Line, "%q has no value", f.Name)
		default:
			m[f.Name] = f.Value
		}
	}
	return m
}

// shownKey repeats an unknown key only if it looks like one: a text in the wrong place
// may be a password.
func shownKey(key string) string {
	if key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return "such key"
	}
	return strconv.Quote(key)
}

func (p *parser) list(n *yaml.Node) []*yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		p.fail(n.Line, "this must be a list")
		return nil
	}
	return n.Content
}

// text returns a scalar as it is written: 0123 stays 0123. It refuses aliases and tags,
// with which a value is another one than it looks.
func (p *parser) text(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.Style&yaml.TaggedStyle != 0 {
		p.fail(n.Line, "this must be a text")
		return ""
	}
	return n.Value
}
