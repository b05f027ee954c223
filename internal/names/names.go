package names

import (
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"golang.org/x/text/secure/precis"
	"golang.org/x/text/unicode/norm"

	"github.com/watchword-auth/watchword/internal/problem"
)

// How long names may be.
const (
	MaxUsername = 64  // characters of a username
	MaxName     = 128 // characters of a group's, a claim's or a person's name
	MaxEmail    = 254 // bytes of an e-mail address (RFC 5321 §4.5.3.1.3)
	MaxValue    = 128 // bytes of a claim's value
)

// freeText is any text of one line without control or invisible characters (RFC
// 8264 §4.3), in one normal form.
var freeText = precis.NewFreeform(precis.Norm(norm.NFC))

// UsernameKey returns the key of a username, by RFC 8265 UsernameCaseMapped: "Alice" and
// "ａｌｉｃｅ" are the same person. A username has no comma, because services read a
// token's claims as lists that are joined with commas, and would find two names in one.
func UsernameKey(username string) (string, error) {
	if key, ok := stableKey(precis.UsernameCaseMapped, username, MaxUsername); ok && !strings.Contains(key, ",") {
		return key, nil
	}
	return "", problem.New(problem.Invalid, "invalid_username",
		"a username has 1 to %d letters, digits or marks, and no commas, spaces or invisible characters (RFC 8265)", MaxUsername)
}

// Key returns the key of a group's or claim's name, by RFC 8266: it folds case and
// compatible forms, and makes one space of many. The error says what it is that has the
// name: "group" or "claim".
func Key(what, name string) (string, error) {
	if key, ok := stableKey(precis.Nickname, name, MaxName); ok {
		return key, nil
	}
	return "", problem.New(problem.Invalid, "invalid_name",
		"a %s name has 1 to %d characters and no control or invisible ones", what, MaxName)
}

// stableKey applies the profile, and refuses a key that a second application would
// change.
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

// Username returns a new user's name as it is shown, and its key.
func Username(s string) (shown, key string, err error) {
	if key, err = UsernameKey(s); err != nil {
		return "", "", err
	}
	if LooksLikeID(key) {
		return "", "", problem.New(problem.Invalid, "invalid_username", "a username cannot have the form of an id")
	}
	shown, err = precis.UsernameCasePreserved.String(s)
	if err != nil {
		return "", "", problem.New(problem.Invalid, "invalid_username", "this username cannot be written in one way only").Because(err)
	}
	return shown, key, nil
}

// New returns a new group's or claim's name as it is shown, and its key.
func New(what, s string) (shown, key string, err error) {
	if key, err = Key(what, s); err != nil {
		return "", "", err
	}
	if LooksLikeID(key) {
		return "", "", problem.New(problem.Invalid, "invalid_name", "a %s name cannot have the form of an id", what)
	}
	shown, err = precis.Nickname.String(s)
	if err != nil {
		return "", "", problem.New(problem.Invalid, "invalid_name", "this %s name cannot be written in one way only", what).Because(err)
	}
	return shown, key, nil
}

// LooksLikeID reports whether a key is a UUID in any of its forms.
func LooksLikeID(key string) bool {
	_, err := uuid.Parse(key)
	return err == nil
}

// Person returns a first or last name as it is shown. It may be empty. It may have every
// character of Unicode, also those that are invisible, such as in emoji, and those that are
// newer than the library's tables, but none that ends a line, controls a terminal, or
// writes the text around it backwards.
func Person(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	if !fits(s, MaxName) || strings.ContainsFunc(s, controls) {
		return "", problem.New(problem.Invalid, "invalid_name",
			"a person's name has at most %d characters, and none that controls a terminal, a line, or the direction of the text", MaxName)
	}
	return strings.TrimSpace(norm.NFC.String(s)), nil
}

// controls reports whether a character does something to the text around it: the controls,
// the separators of lines and paragraphs, and the embeddings, overrides and isolates of the
// bidirectional algorithm. The marks of a direction are none: Arabic and Hebrew names need
// them.
func controls(c rune) bool {
	return unicode.Is(unicode.Cc, c) || c == '\u2028' || c == '\u2029' || c >= '\u202a' && c <= '\u202e' || c >= '\u2066' && c <= '\u2069'
}

// Email checks the form of an address, which may be empty. Whether it belongs to the
// person is not known, so nothing may be decided by it.
func Email(s string) (string, error) {
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

// ClaimValue returns a claim's value in one normal form. A token joins the values of a
// claim with commas, so a value with a comma would be read as two; and a value with a
// space at an end would be another one to readers who trim.
func ClaimValue(s string) (string, error) {
	normal, err := freeText.String(s)
	if err != nil || !utf8.ValidString(s) || normal == "" || len(normal) > MaxValue ||
		strings.Contains(normal, ",") || strings.TrimSpace(normal) != normal {
		return "", problem.New(problem.Invalid, "invalid_value",
			"a claim's value has 1 to %d bytes, no comma, no control character and no space at either end", MaxValue)
	}
	return normal, nil
}
