package session

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/google/uuid"
)

// CookiePrefix begins the value of every browser's cookie, so that secret scanners find one
// that was logged by mistake.
const CookiePrefix = "wwb_"

// A cookie is what a browser has of its session. Its user and session find the record and are
// no secrets. Its secret is 256 random bits.
type cookie struct {
	user    uuid.UUID
	session uuid.UUID
	secret  [32]byte
}

const cookieLength = 16 + 16 + 32

var errCookie = errors.New("session: not a browser's cookie")

func newCookie(rand io.Reader, userID, sessionID string) (cookie, error) {
	var c cookie
	var err error
	if c.user, err = uuid.Parse(userID); err != nil {
		return c, fmt.Errorf("session: user id: %w", err)
	}
	if c.session, err = uuid.Parse(sessionID); err != nil {
		return c, fmt.Errorf("session: id: %w", err)
	}
	if _, err := io.ReadFull(rand, c.secret[:]); err != nil {
		return c, fmt.Errorf("session: cookie: %w", err)
	}
	return c, nil
}

// parseCookie reads the one spelling that String writes.
func parseCookie(s string) (cookie, error) {
	var c cookie
	encoded, ok := strings.CutPrefix(s, CookiePrefix)
	if !ok || len(encoded) != base64.RawURLEncoding.EncodedLen(cookieLength) {
		return c, errCookie
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != cookieLength {
		return c, errCookie
	}
	copy(c.user[:], raw)
	copy(c.session[:], raw[16:])
	copy(c.secret[:], raw[32:])
	return c, nil
}

// String is what the browser gets.
func (c cookie) String() string {
	raw := make([]byte, 0, cookieLength)
	raw = append(raw, c.user[:]...)
	raw = append(raw, c.session[:]...)
	raw = append(raw, c.secret[:]...)
	return CookiePrefix + base64.RawURLEncoding.EncodeToString(raw)
}

// CookieUser returns the id of the user that a browser's cookie claims to be of, live or not; "":
// the text has not the form of one. It is no secret, and proves nothing.
func CookieUser(text string) string {
	c, err := parseCookie(text)
	if err != nil {
		return ""
	}
	return c.user.String()
}
