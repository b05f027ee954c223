package directory

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
		"", " ", "two words", "tab\there", "nul\x00", "\u202eecila", "zero\u200bwidth", "\xff", "a\nb",
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
	want, _ := nameKey("group", "Log Readers")
	for _, other := range []string{"log readers", "  Log   Readers ", "ＬＯＧ\u3000readers"} {
		if got, err := nameKey("group", other); got != want || err != nil {
			t.Errorf("%q is %q (%v), not %q", other, got, err, want)
		}
	}
	for _, bad := range []string{"", "   ", "a\nb", "a\x00", "\xff", "\u202ea", strings.Repeat("x", MaxName+1), strings.Repeat("\ufdfa", MaxName)} {
		if _, err := nameKey("group", bad); code(err) != "invalid_name" {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
}

func TestPasswordsAreJudgedByLengthAlone(t *testing.T) {
	for password, want := range map[string]string{
		"12345678":                         "",
		"correct horse battery staple":     "",
		"pässwörd":                         "",
		"𝓅𝒶𝓈𝓈𝓌𝑜𝓇𝒹":                         "",
		"1234567":                          "password_too_short",
		"äöüäöüä":                          "password_too_short", // 14 bytes, 7 characters
		"":                                 "password_too_short",
		"pass\x00word":                     "invalid_password",
		"pass\nword":                       "invalid_password",
		"password\xff":                     "invalid_password",
		strings.Repeat("x", MaxPassword):   "",
		strings.Repeat("x", MaxPassword+1): "invalid_password",
	} {
		if _, err := newPassword(password); code(err) != want {
			t.Errorf("%.20q: %q, want %q", password, code(err), want)
		}
	}
	composed, _ := preparePassword("p\u00e4ssword")
	decomposed, _ := preparePassword("pa\u0308ssword")
	if composed != decomposed {
		t.Error("the same password typed on another keyboard is another password")
	}
	if upper, _ := preparePassword("PASSWORD"); upper == "password" {
		t.Error("case does not count")
	}
}

func TestEmails(t *testing.T) {
	for address, ok := range map[string]bool{
		"": true, "a@example.org": true, "a.b+c@sub.example.org": true,
		"a": false, "a@": false, "A <a@example.org>": false, " a@example.org": false, "a@example.org\r\nBcc: b@example.org": false,
		"a@b, c@d": false, "\xff@example.org": false, strings.Repeat("a", MaxEmail) + "@example.org": false,
	} {
		if got, err := email(address); (err == nil) != ok || (ok && got != address) {
			t.Errorf("%q: %q, %v", address, got, err)
		}
	}
}

func TestPersonNames(t *testing.T) {
	for given, want := range map[string]string{"": "", "Anne Marie": "Anne Marie", " O'Neil ": "O'Neil", "李": "李"} {
		if got, err := personName(given); got != want || err != nil {
			t.Errorf("%q: %q, %v", given, got, err)
		}
	}
	for _, bad := range []string{"a\nb", "\x1b[31mred", "\xff", strings.Repeat("x", MaxName+1)} {
		if _, err := personName(bad); code(err) != "invalid_name" {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
}

// A token joins values with commas, so a value with one would be two rights.
func TestClaimValuesAreOneValue(t *testing.T) {
	for _, bad := range []string{"", "x,S", ",", "S,", " S", "S ", "a\nb", "a\x00", "\xff", "\u200bS", strings.Repeat("x", MaxValue+1)} {
		if _, err := right("app", bad); code(err) != "invalid_value" {
			t.Errorf("%q is taken: %v", bad, err)
		}
	}
	for _, good := range []string{"r", "read logs", "ü", "a:b/c"} {
		if got, err := right("app", good); err != nil || got != (Right{"app", good}) {
			t.Errorf("%q: %v, %v", good, got, err)
		}
	}
}

func TestClaimShortNamesAreNotTheTokensOwn(t *testing.T) {
	for _, bad := range []string{"sub", "SUB", "exp", "Exp", "iss", "aud", "jti", "sid", "epoch", "scope", "", "a b", "preferred_username"} {
		if _, err := right(bad, "x"); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestTheAdminClaimHasKnownValues(t *testing.T) {
	for _, known := range permissions {
		if _, err := right(Admin, known); err != nil {
			t.Errorf("%s: %v", known, err)
		}
	}
	for _, bad := range []Right{{Admin, "ALL"}, {Admin, "user:write"}, {Admin, "*"}, {"Admin", Superuser}, {"ADMIN", "x"}} {
		if _, err := right(bad.ShortName, bad.Value); code(err) != "unknown_permission" {
			t.Errorf("%v is taken: %v", bad, err)
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
		if again, err := UsernameKey(key); again != key || err != nil {
			t.Errorf("%q is %q, and that is %q (%v)", s, key, again, err)
		}
		if !utf8.ValidString(key) || utf8.RuneCountInString(key) > MaxUsername || strings.ContainsAny(key, " \t\n\x00") {
			t.Errorf("%q is %q", s, key)
		}
		if _, shownAs, err := username(s); err == nil && shownAs != key {
			t.Errorf("%q has two keys", s)
		}
	})
}
