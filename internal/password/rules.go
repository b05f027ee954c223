package password

import (
	"encoding/base32"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/watchword-auth/watchword/internal/problem"
)

// How long passwords may be.
const (
	MinLength = 8    // characters of a new password (NIST SP 800-63B §5.1.1.2)
	MaxLength = 1024 // bytes of any password
)

var errTooShort = problem.New(problem.Invalid, "password_too_short", "a password has at least %d characters", MinLength)

// Prepare brings a password into the one form that is hashed: all spaces are the same
// space, and characters are composed (NFC). These are the mappings of RFC 8265
// OpaqueString. Its classes of characters are not asked: they refuse emoji that have a
// variation selector or are joined, and all characters that are newer than their table,
// where NIST SP 800-63B wants every character of Unicode.
//
// A character that is newer than the table of package norm stays as it is. Emoji are never
// composed, so a later table changes nothing for them.
func Prepare(s string) (string, error) {
	if s == "" || len(s) > MaxLength || !utf8.ValidString(s) {
		return "", problem.New(problem.Invalid, "invalid_password", "a password has 1 to %d bytes of UTF-8 text", MaxLength)
	}
	return norm.NFC.String(strings.Map(func(c rune) rune {
		if unicode.Is(unicode.Zs, c) {
			return ' '
		}
		return c
	}, s)), nil
}

// PrepareNew is Prepare for a password that somebody chooses now. Its one more rule is
// about length: rules of composition make passwords worse (NIST SP 800-63B, appendix A).
func PrepareNew(s string) (string, error) {
	if s == "" { // Prepare would refuse it too, with a reason that misleads
		return "", errTooShort
	}
	prepared, err := Prepare(s)
	if err != nil {
		return "", err
	}
	if utf8.RuneCountInString(prepared) < MinLength {
		return "", errTooShort
	}
	return prepared, nil
}

// Generate makes a password of 150 random bits that can be read aloud and typed: six
// groups of five characters, without the letters that look like others.
func Generate(random io.Reader) (string, error) {
	const groups, size = 6, 5
	raw := make([]byte, 19) // 152 bits, of which 30 characters use 150
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	text := base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding).EncodeToString(raw)
	parts := make([]string, groups)
	for i := range parts {
		parts[i] = text[i*size : (i+1)*size]
	}
	return strings.Join(parts, "-"), nil
}
