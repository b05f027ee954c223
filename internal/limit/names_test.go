package limit_test

import (
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/state"
)

// All spellings of one address, or of one network of a client, are one block.
func TestBlock(t *testing.T) {
	const none = "none"
	for block, addresses := range map[string][]string{
		"192-0-2-1":        {"192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:0201", "0:0:0:0:0:ffff:192.0.2.1", "::ffff:192.0.2.1%eth0"},
		"192-0-2-11":       {"192.0.2.11"},
		"192-0-21-1":       {"192.0.21.1"},
		"2001-db8-0-1--64": {"2001:db8:0:1::", "2001:db8:0:1::1", "2001:DB8:0:1:ffff:ffff:ffff:ffff", "2001:0db8:0000:0001:0000:0000:0000:0001", "2001:db8:0:1::192.0.2.1", "2001:db8:0:1::1%eth0"},
		"2001-db8-0-2--64": {"2001:db8:0:2::1"},
		"2001-db8-0-0--64": {"2001:db8::1"},
		"fe80-0-0-0--64":   {"fe80::1", "fe80::2%eth0", "fe80::2%1"},
		"0-0-0-0--64":      {"::1", "::", "::192.0.2.1"},
		"64-ff9b-0-0--64":  {"64:ff9b::192.0.2.1"},
		none:               {"", "unknown", "_hidden", "192.0.2.1:80", "[::1]", "::1]", "192.0.2.256", "192.0.2", "010.0.0.1", "2001:db8:::1", "::ffff:192.0.2.1.1", "x", "\x00", strings.Repeat("1", 1<<16), "fe80::1%", "@"},
	} {
		for _, a := range addresses {
			if got := limit.Block(a); got != block {
				t.Errorf("%.40q: %s, and not %s", a, got, block)
			}
		}
	}
}

func TestAccount(t *testing.T) {
	for _, same := range [][]string{
		{"ester", "Ester", "ESTER", "ｅｓｔｅｒ", "ＥＳＴＥＲ"},
		{"straße", "STRASSE", "strasse"},
		{"σίσυφος", "ΣΊΣΥΦΟΣ", "σίσυφοσ"},
		{"jos\u00e9", "jose\u0301", "JOSE\u0301"},
		{"iris", "Iris", "IRIS", "İRİS", "ırıs"},
	} {
		for _, name := range same[1:] {
			if limit.Account(name) != limit.Account(same[0]) {
				t.Errorf("%q and %q are two accounts", name, same[0])
			}
		}
	}
	seen := map[string]string{}
	for _, name := range []string{
		"", " ", "ester", "esther", "jose", "josé", "root", "r00t", "two words", "two  words", "\x00", "\xff", strings.Repeat("x", 1<<20), strings.Repeat("x", 1<<20+1),
		"@", "../ester", "name ester", "id 1", "none ", "all", "addresses", "locked", "DROP TABLE users", "名前",
	} {
		account := limit.Account(name)
		if other, ok := seen[account]; ok {
			t.Errorf("%.20q and %.20q are one account", name, other)
		}
		seen[account] = name
	}
	if limit.Account("1") == limit.UserAccount("1") || limit.UserAccount("1") == limit.UserAccount("2") {
		t.Error("a name is an id")
	}
}

// Whatever a client sends, it becomes keys that a state takes.
func FuzzKeys(f *testing.F) {
	for _, s := range []string{"", "192.0.2.1", "fe80::1%eth0", "ester", "\xff\x00", "all"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, key := range []state.Key{
			limit.AccountCounter(limit.Account(s), limit.Block(s)), limit.AddressCounter(limit.Block(s)), limit.Bucket(limit.Login, "account", limit.UserAccount(s), limit.Block(s)),
		} {
			if err := key.Check(); err != nil {
				t.Errorf("%q: %v", s, err)
			}
		}
		if b := limit.Block(s); b == limit.All || b == "addresses" {
			t.Errorf("%q is the block %q", s, b)
		}
	})
}
