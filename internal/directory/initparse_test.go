package directory

import (
	"strings"
	"testing"
)

const exampleInit = `claims:
  - {name: Superuser, short_name: admin, value: all}
  - {name: Log reader, short_name: log, value: r}
groups:
  - name: Administrators
    claims: [Superuser, log READER]
users:
  - username: root
    password: 0123456789
    email: root@example.org
    first_name: Ruth
    groups: [administrators]
  - username: guest
    password_hash: $argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc
`

func TestParseInitFile(t *testing.T) {
	f, err := parseInitFile([]byte(exampleInit))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.claims) != 2 || f.claims[1].ShortName != "log" || f.claims[1].Value != "r" || f.claims[1].NameKey != "log reader" {
		t.Errorf("claims: %+v", f.claims)
	}
	if len(f.groups) != 1 || len(f.groups[0].claims) != 2 || f.groups[0].claims[1] != (reference{"log READER", 6}) {
		t.Errorf("groups: %+v", f.groups)
	}
	root := f.users[0]
	if len(f.users) != 2 || root.password != "0123456789" || root.Email != "root@example.org" || root.FirstName != "Ruth" || len(root.groups) != 1 {
		t.Errorf("users: %+v", f.users)
	}
	if f.users[1].password != "" || !strings.HasPrefix(f.users[1].PasswordHash, "$argon2id$") {
		t.Errorf("guest: %+v", f.users[1])
	}
	if f, err := parseInitFile(nil); err != nil || f.secret() {
		t.Errorf("an empty file: %v, %v", f, err)
	}
}

func TestInitFileSaysWhatIsWrongAndWhere(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"unknown section":   {"user: []\n", `line 1: an init file has no "user"; it has claims, groups, users`},
		"unknown key":       {"claims:\n  - name: a\n    shortname: b\n    value: c\n", `line 3: a claim has no "shortname"; it has name, short_name, value`},
		"twice the key":     {"users:\n  - username: a\n    username: b\n", `line 3: "username" is there twice`},
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
		"reserved":          {"claims:\n  - {name: a, short_name: sub, value: root}\n", "line 2: "},
		"unknown right":     {"claims:\n  - {name: a, short_name: admin, value: everything}\n", "line 2: the claim admin grants administration"},
		"short password":    {"users:\n  - username: a\n    password: short\n", "line 3: a password has at least 8 characters"},
		"both passwords":    {"users:\n  - username: a\n    password: longenough\n    password_hash: x\n", "line 4: a user has password or password_hash, not both"},
		"a bad hash":        {"users:\n  - username: a\n    password_hash: $2a$10$x\n", "line 3: not an Argon2id hash"},
		"a dear hash":       {"users:\n  - username: a\n    password_hash: $argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\n", "line 3: password hash: memory must be"},
		"two documents":     {"users: []\n---\nusers: []\n", "more than one YAML document"},
		"syntax":            {"users: [\n", "line"},
		"not text":          {"users: \xff\n", "it is not UTF-8"},
		"both of two wrong": {"groups:\n  - name: ''\nusers:\n  - username: 'a b'\n", "line 4: a username"},
	} {
		if _, err := parseInitFile([]byte(c.file)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
	}
}

func TestInitFileErrorsRepeatNoPassword(t *testing.T) {
	for _, file := range []string{
		"users:\n  - username: a\n    password: S3cr\n",
		"users:\n  - username: a\n    password: [S3cretS3cret]\n",
		"users:\n  - username: a\n    password S3cretS3cret:\n",
		"users:\n  - username: a\n    password_hash: S3cretS3cret\n",
		"users:\n  - username: a\n    password: S3cretS3cret\n    S3cretS3cret: x\n",
		"users:\n  - username: a\n    password: \"S3cretS3cret\n",
		"users:\n  - username: a\n    password: *S3cret\n",
	} {
		if _, err := parseInitFile([]byte(file)); err == nil || strings.Contains(err.Error(), "S3cr") {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func FuzzInitFile(f *testing.F) {
	f.Add([]byte(exampleInit))
	f.Add([]byte("a: &a [*a, *a]\n"))
	f.Add([]byte("users:\n  - {username: a, <<: *x}\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parseInitFile(data)
		if err != nil {
			return
		}
		for _, c := range file.claims {
			if _, err := right(c.ShortName, c.Value); err != nil || c.NameKey == "" {
				t.Errorf("the claim %+v: %v", c, err)
			}
		}
		for _, g := range file.groups {
			if g.NameKey == "" {
				t.Error("a group without a name")
			}
		}
		for _, u := range file.users {
			if u.NameKey == "" || (u.password != "" && u.PasswordHash != "") {
				t.Errorf("the user %q", u.Username)
			}
			if _, err := newPassword(u.password); u.password != "" && err != nil {
				t.Errorf("the password of %q: %v", u.Username, err)
			}
		}
	})
}
