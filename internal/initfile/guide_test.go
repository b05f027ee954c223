package initfile

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/password"
)

// guide returns the init file of docs/users.md.
func guide(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/users.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/users.md shows no init file")
	}
	return string(block[1])
}

// docs/users.md shows a file that is one, with all that it can have.
func TestTheGuideShowsEveryKey(t *testing.T) {
	text := guide(t)
	f, err := parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Claims) == 0 || len(f.Groups) == 0 || len(f.Users) != 2 || f.Users[0].Password == "" || password.CheckHash(f.Users[1].PasswordHash) != nil {
		t.Errorf("%+v", f)
	}
	// The parser says which keys there are when one is none of them.
	for _, wrong := range []string{"zzz: []\n", "claims:\n  - {zzz: a}\n", "groups:\n  - {zzz: a}\n", "users:\n  - {zzz: a}\n"} {
		_, err := parse([]byte(wrong))
		if err == nil {
			t.Fatalf("%q is an init file", wrong)
		}
		_, keys, ok := strings.Cut(err.Error(), `"zzz"; it has `)
		keys, _, _ = strings.Cut(keys, ";")
		if !ok {
			t.Fatalf("%q: %v", wrong, err)
		}
		for key := range strings.SplitSeq(keys, ", ") {
			if !regexp.MustCompile(`\b`+key+`: `).MatchString(text) && !strings.Contains(text, key+":\n") {
				t.Errorf("docs/users.md does not show %s", key)
			}
		}
	}
}
