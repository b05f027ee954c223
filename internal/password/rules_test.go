package password

import (
	"crypto/rand"
	"errors"
	"regexp"
	"strings"
	"testing"

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
		"12345678":                       "",
		"correct horse battery staple":   "",
		"pässwörd":                       "",
		"𝓅𝒶𝓈𝓈𝓌𝑜𝓇𝒹":                       "",
		"1234567":                        "password_too_short",
		"äöüäöüä":                        "password_too_short", // 14 bytes, 7 characters
		"":                               "password_too_short",
		"pass\x00word":                   "invalid_password",
		"pass\nword":                     "invalid_password",
		"password\xff":                   "invalid_password",
		strings.Repeat("x", MaxLength):   "",
		strings.Repeat("x", MaxLength+1): "invalid_password",
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
