package names

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/problem"
)

// code is the code of a problem, or what else err is.
func code(err error) string {
	var p *problem.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &p):
		return p.Code
	}
	return err.Error()
}

func TestUsernamesAreComparedAsRFC8265Says(t *testing.T) {
	for _, same := range [][]string{
		{"alice", "Alice", "ALICE", "ａｌｉｃｅ"},
		{"bücher", "BÜCHER", "bu\u0308cher"},
		{"alice@example.org", "Alice@Example.ORG"},
		{"k", "\u212a"}, // Kelvin sign
	} {
		want, err := UsernameKey(same[0])
		if err != nil {
			t.Errorf("%q: %v", same[0], err)
		}
		for _, other := range same[1:] {
			if got, err := UsernameKey(other); got != want || err != nil {
				t.Errorf("%q is %q (%v), not %q", other, got, err, want)
			}
		}
	}
	for _, bad := range []string{
		"", " ", "two words", "two,names", "two，names", "tab\there", "nul\x00", "\u202eecila", "zero\u200bwidth", "heart❤\ufe0f", "a\ufe0f", "a\u200db", "tag\U000e0041", "new\U00010d50", "\xff", "a\nb",
		strings.Repeat("a", MaxUsername+1), strings.Repeat("é", MaxUsername+1),
	} {
		if _, err := UsernameKey(bad); code(err) != "invalid_username" {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
	if _, err := UsernameKey(strings.Repeat("é", MaxUsername)); err != nil {
		t.Errorf("%d characters of two bytes: %v", MaxUsername, err)
	}
}

func TestNamesAreComparedFolded(t *testing.T) {
	want, _ := Key("group", "Log Readers")
	for _, other := range []string{"log readers", "  Log   Readers ", "ＬＯＧ\u3000readers"} {
		if got, err := Key("group", other); got != want || err != nil {
			t.Errorf("%q is %q (%v), not %q", other, got, err, want)
		}
	}
	for _, bad := range []string{"", "   ", "a\nb", "a\x00", "\xff", "\u202ea", strings.Repeat("x", MaxName+1), strings.Repeat("\ufdfa", MaxName)} {
		if _, err := Key("group", bad); code(err) != "invalid_name" {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
}

func TestEmails(t *testing.T) {
	for address, ok := range map[string]bool{
		"": true, "a@example.org": true, "a.b+c@sub.example.org": true,
		"a": false, "a@": false, "A <a@example.org>": false, " a@example.org": false, "a@example.org\r\nBcc: b@example.org": false,
		"a@b, c@d": false, "\xff@example.org": false, strings.Repeat("a", MaxEmail) + "@example.org": false,
	} {
		if got, err := Email(address); (err == nil) != ok || (ok && got != address) {
			t.Errorf("%q: %q, %v", address, got, err)
		}
	}
}

func TestPersonNames(t *testing.T) {
	for given, want := range map[string]string{
		"": "", "Anne Marie": "Anne Marie", " O'Neil ": "O'Neil", "李": "李", "Zoe\u0308": "Zo\u00eb",
		"❤\ufe0f": "❤\ufe0f", "👩\u200d👩\u200d👧": "👩\u200d👩\u200d👧", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
		"1\ufe0f\u20e3": "1\ufe0f\u20e3", "\U0001fae9": "\U0001fae9", "\U00010d50": "\U00010d50", // of Unicode 16
		"葛\U000e0101": "葛\U000e0101", "\u05d3\u05d5\u05d3\u200f": "\u05d3\u05d5\u05d3\u200f", "می\u200cخواهم": "می\u200cخواهم",
	} {
		if got, err := Person(given); got != want || err != nil {
			t.Errorf("%q: %q, %v", given, got, err)
		}
	}
	for _, bad := range []string{"a\nb", "\x1b[31mred", "\xff", strings.Repeat("x", MaxName+1), "a\x00", "a\x7f", "a\u0085b", "a\u2028b", "a\u2029b",
		"\u202eecila", "a\u202a", "a\u202d", "a\u202c", "\u2066a\u2069", "\u2068a", "a\u009b31m", "a\r"} {
		if _, err := Person(bad); code(err) != "invalid_name" {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
}

// A token joins values with commas, so a value with one would be two rights.
func TestClaimValuesAreOneValue(t *testing.T) {
	for _, bad := range []string{"", "x,S", ",", "S,", " S", "S ", "a\nb", "a\x00", "\xff", "\u200bS", strings.Repeat("x", MaxValue+1)} {
		if _, err := ClaimValue(bad); code(err) != "invalid_value" {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
	for _, good := range []string{"r", "read logs", "ü", "a:b/c"} {
		if got, err := ClaimValue(good); err != nil || got != good {
			t.Errorf("%q: %q, %v", good, got, err)
		}
	}
}

func FuzzUsernameKey(f *testing.F) {
	for _, s := range []string{"alice", "ÀÉ", "\u0130", "\u1e9e", "ﬀ", "\u03a3\u03c2", "א1", "\u212b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := UsernameKey(s)
		if err != nil {
			return
		}
		if fold := Fold(key); Fold(fold) != fold {
			t.Errorf("%q folds to %q, and that to %q", key, fold, Fold(fold))
		}
		if upper, err := UsernameKey(strings.ToUpper(key)); err == nil && Fold(upper) != Fold(key) {
			t.Errorf("in capitals %q is another name: %q, not %q", key, Fold(upper), Fold(key))
		}
		if again, err := UsernameKey(key); again != key || err != nil {
			t.Errorf("%q is %q, and that is %q (%v)", s, key, again, err)
		}
		if !utf8.ValidString(key) || utf8.RuneCountInString(key) > MaxUsername || strings.ContainsAny(key, " \t\n\x00") {
			t.Errorf("%q is %q", s, key)
		}
		if _, shownAs, err := Username(s); err == nil && shownAs != key {
			t.Errorf("%q has two keys", s)
		}
	})
}
