package directory

import (
	"net/mail"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/token"
)

// How long things may be.
const (
	MaxUsername = 64   // characters of a username
	MaxName     = 128  // characters of a group's, claim's or person's name
	MinPassword = 8    // characters of a new password (NIST SP 800-63B §5.1.1.2)
	MaxPassword = 1024 // bytes of a password
	MaxEmail    = 254  // bytes of an e-mail address (RFC 5321 §4.5.3.1.3)
	MaxValue    = 128  // bytes of a claim's value
	MaxClaims   = 4096 // bytes of all claims of a user or a group, as JSON in a token
)

// freeText is any text of one line without control or invisible characters (RFC
// 8264 §4.3), in one normal form.
var freeText = precis.NewFreeform(precis.Norm(norm.NFC))

// UsernameKey is a username as it is compared: RFC 8265 UsernameCaseMapped, so
// that "Alice" and "ａｌｉｃｅ" are the same person. It has no comma, which would make
// two of one for whoever takes a token's claim for a list, as those of rights are.
func UsernameKey(username string) (string, error) {
	if key, ok := stableKey(precis.UsernameCaseMapped, username, MaxUsername); ok && !strings.Contains(key, ",") {
		return key, nil
	}
	return "", problem.New(problem.Invalid, "invalid_username",
		"a username has 1 to %d letters, digits or marks, and no commas, spaces or invisible characters (RFC 8265)", MaxUsername)
}

// nameKey is a group's or claim's name as it is compared: RFC 8266, which folds
// case and compatible forms and makes one space of many. what is for the error.
func nameKey(what, name string) (string, error) {
	if key, ok := stableKey(precis.Nickname, name, MaxName); ok {
		return key, nil
	}
	return "", problem.New(problem.Invalid, "invalid_name",
		"a %s name has 1 to %d characters and no control or invisible ones", what, MaxName)
}

// stableKey applies the profile and refuses a key that another application would
// change again: two names that are equal today must stay so.
func stableKey(p *precis.Profile, s string, limit int) (string, bool) {
	if !fits(s, limit) {
		return "", false
	}
	key, err := p.CompareKey(s)
	if err != nil || !fits(key, limit) {
		return "", false
	}
	again, err := p.CompareKey(key)
	return key, err == nil && again == key
}

func fits(s string, limit int) bool {
	return s != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= limit
}

// username returns the name as it is shown and as it is compared.
func username(s string) (shown, key string, err error) {
	if key, err = UsernameKey(s); err != nil {
		return "", "", err
	}
	if looksLikeID(key) {
		return "", "", problem.New(problem.Invalid, "invalid_username", "a username cannot have the form of an id")
	}
	shown, err = precis.UsernameCasePreserved.String(s)
	if err != nil {
		return "", "", problem.New(problem.Invalid, "invalid_username", "this username cannot be written in one way only").Because(err)
	}
	return shown, key, nil
}

// name is username for groups and claims.
func name(what, s string) (shown, key string, err error) {
	if key, err = nameKey(what, s); err != nil {
		return "", "", err
	}
	if looksLikeID(key) {
		return "", "", problem.New(problem.Invalid, "invalid_name", "a %s name cannot have the form of an id", what)
	}
	shown, err = precis.Nickname.String(s)
	if err != nil {
		return "", "", problem.New(problem.Invalid, "invalid_name", "this %s name cannot be written in one way only", what).Because(err)
	}
	return shown, key, nil
}

// looksLikeID says whether a key is a UUID in any of its forms: what names things by
// id or by name must never take the one for the other.
func looksLikeID(key string) bool {
	_, err := uuid.Parse(key)
	return err == nil
}

// personName is a first or last name; empty is allowed.
func personName(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if fits(s, MaxName) {
		if shown, err := freeText.String(s); err == nil {
			return strings.TrimSpace(shown), nil
		}
	}
	return "", problem.New(problem.Invalid, "invalid_name", "a person's name has at most %d characters and no control or invisible ones", MaxName)
}

// email checks the form of an address; empty is allowed. Whether it belongs to
// the person is not known, so nothing may be decided by it.
func email(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if len(s) <= MaxEmail && utf8.ValidString(s) {
		if _, err := freeText.String(s); err == nil {
			if a, err := mail.ParseAddress(s); err == nil && a.Address == s {
				return s, nil
			}
		}
	}
	return "", problem.New(problem.Invalid, "invalid_email", "this is not an e-mail address of at most %d bytes", MaxEmail)
}

// preparePassword brings a password into the one form that is hashed: RFC 8265
// OpaqueString, which leaves case and spaces alone.
func preparePassword(s string) (string, error) {
	if len(s) <= MaxPassword && utf8.ValidString(s) {
		if prepared, err := precis.OpaqueString.String(s); err == nil {
			return prepared, nil
		}
	}
	return "", problem.New(problem.Invalid, "invalid_password", "a password has at most %d bytes of UTF-8 text and no control characters", MaxPassword)
}

var errPasswordTooShort = problem.New(problem.Invalid, "password_too_short", "a password has at least %d characters", MinPassword)

// newPassword is preparePassword for a password that somebody chooses now. It
// asks for length and for nothing else: rules of composition make passwords worse
// (NIST SP 800-63B, appendix A).
func newPassword(s string) (string, error) {
	if s == "" { // which is no OpaqueString
		return "", errPasswordTooShort
	}
	prepared, err := preparePassword(s)
	if err != nil {
		return "", err
	}
	if utf8.RuneCountInString(prepared) < MinPassword {
		return "", errPasswordTooShort
	}
	return prepared, nil
}

// right checks the two halves of a claim. A comma would make two values of one
// when a token joins them, and so would a space at an end for readers who trim.
func right(shortName, value string) (Right, error) {
	if err := token.CheckClaimName(shortName); err != nil {
		return Right{}, err
	}
	normal, err := freeText.String(value)
	if err != nil || !utf8.ValidString(value) || normal == "" || len(normal) > MaxValue ||
		strings.Contains(normal, ",") || strings.TrimSpace(normal) != normal {
		return Right{}, problem.New(problem.Invalid, "invalid_value",
			"a claim's value has 1 to %d bytes, no comma, no control character and no space at either end", MaxValue)
	}
	if strings.EqualFold(shortName, Admin) && (shortName != Admin || !slices.Contains(permissions, normal)) {
		return Right{}, problem.New(problem.Invalid, "unknown_permission",
			"the claim %s grants administration and has one of the values %s", Admin, strings.Join(permissions, ", "))
	}
	return Right{shortName, normal}, nil
}
