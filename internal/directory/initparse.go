package directory

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// An initFile is what a file asks for, checked as far as that goes without the
// database.
type initFile struct {
	claims []initClaim
	groups []initGroup
	users  []initUser
}

type initClaim struct {
	store.Claim
	line int
}

type initGroup struct {
	store.Group
	claims []reference
}

type initUser struct {
	store.User
	password string // as it is hashed; empty: none, or PasswordHash is there
	groups   []reference
}

// A reference names something that may stand in the file or in the database.
type reference struct {
	name string
	line int
}

// secret says whether the file holds what others should not read.
func (f *initFile) secret() bool {
	return slices.ContainsFunc(f.users, func(u initUser) bool { return u.password != "" || u.PasswordHash != "" })
}

// parseInitFile reads a file and reports all that is wrong with it.
func parseInitFile(data []byte) (*initFile, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("it is not UTF-8 text")
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, more yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return &initFile{}, nil
	} else if err != nil {
		return nil, syntaxError(err)
	}
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("it has more than one YAML document")
	}
	var p initParser
	file := p.file(document.Content[0])
	if len(p.wrong) > 0 {
		return nil, errors.New(strings.Join(p.wrong, "; "))
	}
	return file, nil
}

// syntaxError passes on what the YAML library says, except where it repeats what
// the file says: a password that begins with a star looks like an alias.
func syntaxError(err error) error {
	if strings.Contains(err.Error(), "unknown anchor") {
		return errors.New("an alias (*name) refers to nothing; put a text that begins with a star in quotes")
	}
	return err
}

// An initParser walks the nodes of a file and notes what is wrong.
type initParser struct{ wrong []string }

func (p *initParser) fail(n *yaml.Node, format string, args ...any) {
	p.wrong = append(p.wrong, at(n.Line, format, args...).Error())
}

// check notes an error that a client may read.
func (p *initParser) check(n *yaml.Node, err error) {
	if err != nil {
		p.fail(n, "%s", problem.From(err).Detail)
	}
}

func (p *initParser) file(n *yaml.Node) *initFile {
	f := &initFile{}
	m := p.mapping(n, "an init file", "claims", "groups", "users")
	seen := names{}
	for _, n := range p.sequence(m["claims"]) {
		one := p.claim(n)
		p.once(n, seen, one.NameKey, "claim")
		f.claims = append(f.claims, one)
	}
	seen = names{}
	for _, n := range p.sequence(m["groups"]) {
		g := p.group(n)
		p.once(n, seen, g.NameKey, "group")
		f.groups = append(f.groups, g)
	}
	seen = names{}
	for _, n := range p.sequence(m["users"]) {
		u := p.user(n)
		p.once(n, seen, u.NameKey, "user")
		f.users = append(f.users, u)
	}
	return f
}

func (p *initParser) claim(n *yaml.Node) initClaim {
	m := p.mapping(n, "a claim", "name", "short_name", "value")
	one := initClaim{line: n.Line}
	given, short, value := p.text(m["name"]), p.text(m["short_name"]), p.text(m["value"])
	p.check(n, patchClaim(&one.Claim, ClaimPatch{&given, &short, &value}))
	return one
}

func (p *initParser) group(n *yaml.Node) (g initGroup) {
	m := p.mapping(n, "a group", "name", "claims")
	var err error
	g.Name, g.NameKey, err = name("group", p.text(m["name"]))
	p.check(n, err)
	g.claims = p.references(m["claims"])
	return g
}

func (p *initParser) user(n *yaml.Node) (u initUser) {
	m := p.mapping(n, "a user", "username", "password", "password_hash", "email", "first_name", "last_name", "groups")
	var err error
	u.User, err = NewUser{
		Username: p.text(m["username"]), Email: p.text(m["email"]),
		FirstName: p.text(m["first_name"]), LastName: p.text(m["last_name"]),
	}.user()
	p.check(n, err)
	u.groups = p.references(m["groups"])

	password, hash := m["password"], m["password_hash"]
	switch {
	case password != nil && hash != nil:
		p.fail(hash, "a user has password or password_hash, not both")
	case password != nil:
		u.password, err = newPassword(p.text(password))
		p.check(password, err)
	case hash != nil:
		u.PasswordHash = p.text(hash)
		if _, err := parsePHC(u.PasswordHash); err != nil {
			p.fail(hash, "%v", err)
		}
	}
	return u
}

// names remembers the lines on which names stand.
type names map[string]int

// once notes a name that was there before.
func (p *initParser) once(n *yaml.Node, seen names, key, what string) {
	if key == "" {
		return // something else is wrong with it
	}
	if line, ok := seen[key]; ok {
		p.fail(n, "the same %s as on line %d", what, line)
	}
	seen[key] = n.Line
}

// mapping returns the values of a mapping that has no other keys than these, and
// each once.
func (p *initParser) mapping(n *yaml.Node, what string, keys ...string) map[string]*yaml.Node {
	m := make(map[string]*yaml.Node)
	if n.Kind != yaml.MappingNode {
		p.fail(n, "%s is a mapping with %s", what, strings.Join(keys, ", "))
		return m
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case !slices.Contains(keys, key.Value):
			p.fail(key, "%s has no %s; it has %s", what, shownKey(key.Value), strings.Join(keys, ", "))
		case m[key.Value] != nil:
			p.fail(key, "%q is there twice", key.Value)
		case value.Kind == yaml.ScalarNode && value.ShortTag() == "!!null":
			p.fail(value, "%q has no value", key.Value)
		default:
			m[key.Value] = value
		}
	}
	return m
}

// shownKey repeats a key only if it looks like one: what is written in the wrong
// place may be a password.
func shownKey(key string) string {
	if key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return "such key"
	}
	return strconv.Quote(key)
}

func (p *initParser) sequence(n *yaml.Node) []*yaml.Node {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		p.fail(n, "this must be a list")
		return nil
	}
	return n.Content
}

// text is a scalar as it is written: 0123 stays 0123. Aliases are refused, like
// everything that reads otherwise than it looks.
func (p *initParser) text(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.Style&yaml.TaggedStyle != 0 {
		p.fail(n, "this must be a text")
		return ""
	}
	return n.Value
}

func (p *initParser) references(n *yaml.Node) []reference {
	var list []reference
	for _, one := range p.sequence(n) {
		list = append(list, reference{p.text(one), one.Line})
	}
	return list
}
