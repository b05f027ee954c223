package names

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"
	"unicode"

	"go.mau.fi/util/confusable"
)

func alike(a, b string) bool {
	return slices.ContainsFunc(Looks(a), func(look string) bool { return slices.Contains(Looks(b), look) })
}

func TestLooks(t *testing.T) {
	for _, same := range [][2]string{
		{"root", "Root"}, {"root", "r00t"}, {"alice", "a1ice"}, {"alice", "AIice"}, {"Ivan", "lvan"}, {"modern", "modem"}, {"POPE", "РОРЕ"}, {"pope", "роре"},
		{"Root Admin", "root  admin"}, {"Root Admin", "Root,Admin"}, {"Root Admin", "RootAdmin"}, {"Ada Boss", "Аda Boss"}, {"boss@example.org", "bоss@example.org"},
	} {
		if !alike(same[0], same[1]) {
			t.Errorf("%q and %q: %q, %q", same[0], same[1], Looks(same[0]), Looks(same[1]))
		}
	}
	for _, different := range [][2]string{{"alice", "alicia"}, {"user1", "user2"}, {"user1", "user11"}, {"röot", "root"}, {"a", ""}, {"", ""}} {
		if alike(different[0], different[1]) {
			t.Errorf("%q looks like %q", different[0], different[1])
		}
	}
}

// Looks are kept in databases. Where this fails, raise LooksVersion and write the new
// digest here; the looks of all users are then made anew.
func TestLooksHaveAVersion(t *testing.T) {
	h := sha256.New()
	for c := rune('!'); c <= unicode.MaxRune; c++ {
		if confusable.GetReplacement(c) == "" {
			continue
		}
		for _, look := range Looks(string(c)) {
			h.Write([]byte(look + " "))
		}
	}
	const version, digest = 1, "210bba4bbf485ff6ba04e5e477fd0d35e4e923f060f74a060a7d6d5e868ba4bf"
	if got := hex.EncodeToString(h.Sum(nil)); LooksVersion != version || got != digest {
		t.Errorf("version %d has the digest %s", LooksVersion, got)
	}
}

func TestEmailKeys(t *testing.T) {
	for _, same := range [][2]string{
		{"a@example.org", "A@EXAMPLE.org"}, {"a@bücher.example", "a@xn--bcher-kva.example"}, {"a@Bücher.example", "a@bu\u0308cher.example"},
		{"ａ@example.org", "a@example.org"}, {"a@under_score.example", "A@under_score.example"},
	} {
		if a, b := EmailKey(same[0]), EmailKey(same[1]); a != b {
			t.Errorf("%q is %q, and %q is %q", same[0], a, same[1], b)
		}
	}
	if EmailKey("a.b@example.org") == EmailKey("ab@example.org") || EmailKey("a+b@example.org") == EmailKey("a@example.org") || EmailKey("") != "" {
		t.Error("two addresses are one")
	}
}

func TestUsernamesHaveOneScript(t *testing.T) {
	for _, good := range []string{"alice", "alice-1@example.org", "иван", "Ελένη", "李", "zhang李", "李さんカタx", "김철수kim", "bücher", "مريم٣", "x1.y_z"} {
		if err := CheckScripts(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"pаypal", "rοot", "аlice", "иvan", "김さん", "李иван", "αлиса"} {
		if code(CheckScripts(bad)) != "username_mixes_scripts" {
			t.Errorf("%q is taken", bad)
		}
	}
}
