package names

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"testing"

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

// Digests of looks and folds are kept in databases. Where this fails, raise Version and
// write the new digest here; those of all users are then made anew.
func TestLooksAndFoldsHaveAVersion(t *testing.T) {
	h := sha256.New()
	for c := rune('!'); c < 0x20000; c++ { // no letter after it has a case
		s := string(c)
		if fold := Fold(s); fold != s {
			h.Write([]byte(s + fold + " "))
		}
		if confusable.GetReplacement(c) == "" && !invisible(c) {
			continue
		}
		for _, look := range Looks(s) {
			h.Write([]byte(look + " "))
		}
	}
	const version, digest = 2, "747459029ddca0e4fcba26a575c8e1d58c65d6778aec97366f8e56726c006836"
	if got := hex.EncodeToString(h.Sum(nil)); Version != version || got != digest {
		t.Errorf("version %d has the digest %s", Version, got)
	}
}

// Whichever way people write a name, in capitals or not, it is the same user.
func TestFolds(t *testing.T) {
	key := func(s string) string {
		k, err := UsernameKey(s)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return k
	}
	for _, same := range [][]string{
		{"οδυσσευς", "ΟΔΥΣΣΕΥΣ", "Οδυσσευς", "οδυσσευσ"}, {"οδυσσεύς", "ΟΔΥΣΣΕΎΣ"}, {"Ἀχιλλεύς", "ἈΧΙΛΛΕΎΣ"}, {"ᾳδης", "ΑΙΔΗΣ"},
		{"straße", "STRASSE", "STRAẞE"}, {"ırmak", "IRMAK", "irmak"}, {"İrem", "irem", "i̇rem", "IREM"}, {"ａｌｉｃｅ", "ALICE"}, {"ꭰꭱ", "ᎠᎡ"},
		{"BÜCHER", "bu\u0308cher"},
	} {
		for _, other := range same {
			if got, want := Fold(key(other)), Fold(key(same[0])); got != want || Fold(got) != got {
				t.Errorf("%q is %q, and %q is %q", other, got, same[0], want)
			}
			if !alike(other, same[0]) {
				t.Errorf("%q does not look like %q, which is the same name", other, same[0])
			}
		}
	}
	for _, different := range [][2]string{{"οδυσσευς", "οδυσσεύς"}, {"bucher", "bücher"}, {"a.b", "ab"}, {"jose", "josé"}} {
		if Fold(key(different[0])) == Fold(key(different[1])) {
			t.Errorf("%q is %q", different[0], different[1])
		}
	}
}

// What is not seen makes no other name.
func TestLooksIgnoreTheInvisible(t *testing.T) {
	for _, c := range []string{
		"\u200b", "\u200c", "\u200d", "\u2060", "\u00ad", "\u034f", "\u115f", "\u3164", "\u180e", "\ufe0f", "\U000e0101", "\U000e0041", "\ufeff",
		"\u200f", "\u061c", "\u2065", "\ufff0", "\U000e0fff", "\u2800", "\U0001bca0", "\u17b4",
	} {
		if !alike("Root"+c+" Admin", "Root Admin") {
			t.Errorf("%+q makes another look: %q", c, Looks("Root"+c+" Admin"))
		}
		if looks := Looks(c); looks != nil {
			t.Errorf("%+q looks like %q", c, looks)
		}
	}
}

func TestEmailKeys(t *testing.T) {
	for _, same := range [][2]string{
		{"a@example.org", "A@EXAMPLE.org"}, {"a@bücher.example", "a@xn--bcher-kva.example"}, {"a@Bücher.example", "a@bu\u0308cher.example"},
		{"ａ@example.org", "a@example.org"}, {"ΟΔΥΣΣΕΥΣ@example.org", "οδυσσευς@example.org"}, {"a@under_score.example", "A@under_score.example"},
	} {
		if a, b := EmailKey(same[0]), EmailKey(same[1]); a != b {
			t.Errorf("%q is %q, and %q is %q", same[0], a, same[1], b)
		}
	}
	if EmailKey("a.b@example.org") == EmailKey("ab@example.org") || EmailKey("a+b@example.org") == EmailKey("a@example.org") || EmailKey("") != "" ||
		EmailKey("weiss@example.org") == EmailKey("weiß@example.org") || EmailKey("a@strasse.example") == EmailKey("a@straße.example") {
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
