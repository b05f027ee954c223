package password

import (
	"encoding/base32"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"

	"github.com/watchword-auth/watchword/internal/problem"
)

// How long passwords may be.
const (
	MinLength = 8    // characters of a new password (NIST SP 800-63B §5.1.1.2)
	MaxLength = 1024 // bytes of any password
)

var errTooShort = problem.New(problem.Invalid, "password_too_short", "a password has at least %d characters", MinLength)

// Prepare brings a password into the one form that is hashed: RFC 8265 OpaqueString,
// which leaves case and spaces alone.
func Prepare(s string) (string, error) {
	if len(s) <= MaxLength && utf8.ValidString(s) {
		if prepared, err := precis.OpaqueString.String(s); err == nil {
			return prepared, nil
		}
	}
	return "", problem.New(problem.Invalid, "invalid_password", "a password has at most %d bytes of UTF-8 text and no control characters", MaxLength)
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
