package password

import (
	"crypto/rand"
	"errors"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"

	"github.com/watchword-auth/watchword/internal/problem"
)

// code returns the code of a problem, or the text of any other error.
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

func TestPasswordsAreJudgedByLengthAlone(t *testing.T) {
	for password, want := range map[string]string{
		"12345678":                     "",
		"correct horse battery staple": "",
		"pässwörd":                     "",
		"𝓅𝒶𝓈𝓈𝓌𝑜𝓇𝒹":                     "",
		"1234567":                      "password_too_short",
		"äöüäöüä":                      "password_too_short", // 14 bytes, 7 characters
		"":                             "password_too_short",
		"pass\x00word":                 "",
		"pass\nword":                   "",
		"ich\u00a0❤\ufe0f\u00a0dich":   "",
		"👩\u200d👩\u200d👧 family":       "",
		"🏳\ufe0f\u200d🌈\u200b\u2060\ufeff!":                       "",
		"\U0001fae9\U00010d50\U0010ffff\ue000\u202e\u0378\ufffe.": "",                   // new, private, no characters at all
		"❤\ufe0f❤\ufe0f❤\ufe0f1":                                  "password_too_short", // 7 characters of Unicode
		"password\xff":                                            "invalid_password",
		strings.Repeat("x", MaxLength):                            "",
		strings.Repeat("x", MaxLength+1):                          "invalid_password",
	} {
		if _, err := PrepareNew(password); code(err) != want {
			t.Errorf("%.20q: %q, want %q", password, code(err), want)
		}
	}
	composed, _ := Prepare("p\u00e4ssword")
	decomposed, _ := Prepare("pa\u0308ssword")
	if composed != decomposed {
		t.Error("the same password typed on another keyboard is another password")
	}
	if upper, _ := Prepare("PASSWORD"); upper == "password" {
		t.Error("case does not count")
	}
}

// A password that was set under the rules of before, RFC 8265 OpaqueString, has the hash
// that it had.
func TestPreparedAsOpaqueString(t *testing.T) {
	same, more := 0, 0
	check := func(s string) {
		old, err := precis.OpaqueString.String(s)
		prepared, ourErr := Prepare(s)
		if ourErr != nil {
			t.Errorf("%q is refused: %v", s, ourErr)
		}
		if err != nil {
			more++
		} else if same++; old != prepared {
			t.Errorf("%q was %q, and is %q", s, old, prepared)
		}
		if again, err := Prepare(prepared); again != prepared && len(prepared) <= MaxLength {
			t.Errorf("%q is %q, and that is %q (%v)", s, prepared, again, err)
		}
	}
	for c := rune(0); c < 0x20000; c++ { // what is composed, what is not, and what is nothing
		if !utf8.ValidRune(c) {
			continue
		}
		check(string(c))
		if c < 0x3400 { // letters that compose with a mark are here
			check("a" + string(c) + "\u0301\u0323")
		}
	}
	if same < 60_000 || more < 40_000 {
		t.Errorf("%d were taken before, %d are new", same, more)
	}
}

func FuzzPrepare(f *testing.F) {
	f.Add("\u2000a\u0323\u0307 \u3000\u1100\u1161\u11a8")
	f.Fuzz(func(t *testing.T, s string) {
		if old, err := precis.OpaqueString.String(s); err == nil && len(s) <= MaxLength && utf8.ValidString(s) {
			if prepared, err := Prepare(s); err != nil || prepared != old {
				t.Errorf("%q was %q, and is %q (%v)", s, old, prepared, err)
			}
		}
	})
}

func TestGenerate(t *testing.T) {
	shape := regexp.MustCompile(`^[0-9a-hjkmnp-tv-z]{5}(-[0-9a-hjkmnp-tv-z]{5}){5}$`)
	seen := map[string]bool{}
	for range 100 {
		p, err := Generate(rand.Reader)
		if err != nil || !shape.MatchString(p) || seen[p] {
			t.Fatalf("%q, %v", p, err)
		}
		if _, err := PrepareNew(p); err != nil {
			t.Error(err)
		}
		seen[p] = true
	}
	if _, err := Generate(strings.NewReader("too little")); err == nil {
		t.Error("made without randomness")
	}
}
