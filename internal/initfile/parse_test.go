package initfile

import (
	_ "embed"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/password"
)

//go:embed testdata/example.yaml
var example string

// parse judges claims by their values alone.
func parse(data []byte) (*File, error) {
	return Parse(data, func(_, value string) (string, error) { return names.ClaimValue(value) })
}

func TestParse(t *testing.T) {
	f, err := parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Claims) != 2 || f.Claims[1] != (Claim{Line: 3, Name: "Log reader", Key: "log reader", ShortName: "log", Value: "r"}) {
		t.Errorf("claims: %+v", f.Claims)
	}
	if len(f.Groups) != 1 || f.Groups[0].Key != "administrators" || len(f.Groups[0].Claims) != 2 ||
		f.Groups[0].Claims[1] != (Link{6, "log READER", "log reader"}) {
		t.Errorf("groups: %+v", f.Groups)
	}
	root := f.Users[0]
	if len(f.Users) != 2 || root.Username != "root" || root.Key != "root" || root.Password != "0123456789" || root.PasswordHash != "" ||
		root.Email != "root@example.org" || root.FirstName != "Ruth" || root.LastName != "" ||
		len(root.Groups) != 1 || root.Groups[0] != (Link{12, "administrators", "administrators"}) {
		t.Errorf("users: %+v", f.Users)
	}
	if f.Users[1].Password != "" || !strings.HasPrefix(f.Users[1].PasswordHash, "$argon2id$") {
		t.Errorf("guest: %+v", f.Users[1])
	}
	if !f.HasSecrets() {
		t.Error("passwords are no secrets")
	}
	if f, err := parse([]byte("users:\n  - username: alice\n    groups: [\"\"]\n")); err != nil || f.HasSecrets() || f.Users[0].Groups[0] != (Link{3, "", ""}) {
		t.Errorf("a file without passwords: %+v, %v", f, err)
	}
	if f, err := parse(nil); err != nil || f.HasSecrets() {
		t.Errorf("an empty file: %v, %v", f, err)
	}
}

func TestParseSaysWhatIsWrongAndWhere(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"unknown section":   {"user: []\n", `line 1: an init file has no "user"; did you mean users?`},
		"nothing like it":   {"users:\n  - username: a\n    role: b\n", `line 3: a user has no "role"; it has username, password, password_hash, email, first_name, last_name, groups`},
		"unknown key":       {"claims:\n  - name: a\n    shortname: b\n    value: c\n", `line 3: a claim has no "shortname"; did you mean short_name?`},
		"twice the key":     {"users:\n  - username: a\n    username: b\n", `line 3: "username" is set already in line 2`},
		"twice the user":    {"users:\n  - username: alice\n  - username: ALICE\n", "line 3: the same user as on line 2"},
		"twice the group":   {"groups:\n  - name: a b\n  - name: A  B\n", "line 3: the same group as on line 2"},
		"twice the claim":   {"claims:\n  - {name: a, short_name: x, value: y}\n  - {name: A, short_name: x, value: z}\n", "line 3: the same claim as on line 2"},
		"no value":          {"users:\n", `line 1: "users" has no value`},
		"not a list":        {"users: alice\n", "line 1: this must be a list"},
		"not a mapping":     {"users:\n  - alice\n", "line 2: a user is a mapping with username"},
		"not a text":        {"users:\n  - username: [a]\n", "line 2: this must be a text"},
		"tagged":            {"users:\n  - username: !!binary YWxpY2U=\n", "line 2: this must be a text"},
		"alias":             {"users:\n  - &a {username: a}\n  - *a\n", "line 3: a user is a mapping"},
		"merge":             {"users:\n  - {username: a, <<: {email: b@c.d}}\n", "line 2: a user has no such key"},
		"comma":             {"claims:\n  - {name: a, short_name: x, value: 'r,S'}\n", "line 2: a claim's value has"},
		"short password":    {"users:\n  - username: a\n    password: short\n", "line 3: a password has at least 8 characters"},
		"both passwords":    {"users:\n  - username: a\n    password: longenough\n    password_hash: x\n", "line 4: a user has password or password_hash, not both"},
		"a bad hash":        {"users:\n  - username: a\n    password_hash: $2a$10$x\n", "line 3: not a bcrypt hash"},
		"no hash":           {"users:\n  - username: a\n    password_hash: secret123\n", "line 3: not an Argon2id hash"},
		"a dear hash":       {"users:\n  - username: a\n    password_hash: $argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\n", "line 3: password hash: memory must be"},
		"two documents":     {"users: []\n---\nusers: []\n", "there is a second YAML document"},
		"syntax":            {"users: [\n", "line"},
		"not text":          {"users: \xff\n", "invalid leading UTF-8 octet"},
		"both of two wrong": {"groups:\n  - name: ''\nusers:\n  - username: 'a b'\n", "line 4: a username"},
	} {
		if _, err := parse([]byte(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
	}
}

func TestErrorsRepeatNoPassword(t *testing.T) {
	for _, file := range []string{
		"users:\n  - username: a\n    password: S3cr\n",
		"users:\n  - username: a\n    password: [S3cretS3cret]\n",
		"users:\n  - username: a\n    password S3cretS3cret:\n",
		"users:\n  - username: a\n    password_hash: S3cretS3cret\n",
		"users:\n  - username: a\n    password: S3cretS3cret\n    S3cretS3cret: x\n",
		"users:\n  - username: a\n    password: \"S3cretS3cret\n",
		"users:\n  - username: a\n    password: *S3cret\n",
	} {
		if _, err := parse([]byte(file)); err == nil || strings.Contains(err.Error(), "S3cr") {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("a: &a [*a, *a]\n"))
	f.Add([]byte("users:\n  - {username: a, <<: *x}\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parse(data)
		if err != nil {
			return
		}
		for _, c := range file.Claims {
			if c.Key == "" || c.Value == "" {
				t.Errorf("the claim %+v", c)
			}
		}
		for _, g := range file.Groups {
			if g.Key == "" {
				t.Error("a group without a name")
			}
		}
		for _, u := range file.Users {
			if u.Key == "" || (u.Password != "" && u.PasswordHash != "") {
				t.Errorf("the user %q", u.Username)
			}
			if _, err := password.PrepareNew(u.Password); u.Password != "" && err != nil {
				t.Errorf("the password of %q: %v", u.Username, err)
			}
		}
	})
}
