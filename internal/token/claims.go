package token

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf8"
)

// ClientID is every token's client_id, which RFC 9068 §2.2 requires: the first-party
// client that logs users in by their password. There are no others.
const ClientID = "watchword"

// Claims are what a token says beside ClientID (RFC 7519 §4.1, RFC 9068 §2.2). All
// but SessionID, NotBefore and User are required.
type Claims struct {
	Issuer    string    // iss
	Subject   string    // sub: the user's id
	Audience  []string  // aud
	ID        string    // jti: see NewID
	SessionID string    // sid; left out when empty
	Epoch     int64     // epoch: the user's, as of issuing
	IssuedAt  time.Time // iat
	NotBefore time.Time // nbf; left out when zero
	ExpiresAt time.Time // exp

	// User are the user's claims and the user_info fields, by claim name. A
	// Reserved name makes Sign fail.
	User map[string]string
}

// idBytes is how long a jti is before it is written.
const idBytes = 16

// NewID makes a jti: 128 random bits.
func NewID(random io.Reader) (string, error) {
	var id [idBytes]byte
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return "", fmt.Errorf("token: randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(id[:]), nil
}

// IsID says whether s is a jti as NewID writes it, to the letter: what is taken back
// goes by the digest of its name, and another spelling has another one.
func IsID(s string) bool {
	id, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(id) == idBytes && len(s) == base64.RawURLEncoding.EncodedLen(idBytes)
}

// encode gives the payload: its members in the order of their names, times as
// whole seconds. A fraction is dropped, so that no token lives longer than said.
func (c Claims) encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	m := make(map[string]any, 10+len(c.User))
	for name, value := range c.User {
		if err := checkSpelling(name); err != nil {
			return nil, err
		}
		if Reserved(name) {
			return nil, errReserved
		}
		if !utf8.ValidString(value) {
			return nil, fmt.Errorf("token: the value of the claim %q is not UTF-8", name)
		}
		m[name] = value
	}
	m["iss"], m["sub"], m["jti"], m["aud"] = c.Issuer, c.Subject, c.ID, c.Audience
	m["client_id"] = ClientID
	if len(c.Audience) == 1 {
		m["aud"] = c.Audience[0]
	}
	m["iat"], m["exp"], m["epoch"] = c.IssuedAt.Unix(), c.ExpiresAt.Unix(), c.Epoch
	if !c.NotBefore.IsZero() {
		m["nbf"] = c.NotBefore.Unix()
	}
	if c.SessionID != "" {
		m["sid"] = c.SessionID
	}
	return json.Marshal(m)
}

func (c Claims) check() error {
	switch {
	case c.Issuer == "" || c.Subject == "" || c.ID == "":
		return errors.New("token: iss, sub and jti are required")
	case len(c.Audience) == 0 || slices.Contains(c.Audience, ""):
		return errors.New("token: aud is required")
	case c.IssuedAt.Unix() <= 0 || c.ExpiresAt.Unix() <= c.IssuedAt.Unix():
		return errors.New("token: exp must be at least a second after iat")
	case c.Epoch < 0:
		return errors.New("token: an epoch is not negative")
	}
	// encoding/json would write U+FFFD, and make one subject of two.
	for _, s := range append([]string{c.Issuer, c.Subject, c.ID, c.SessionID}, c.Audience...) {
		if !utf8.ValidString(s) {
			return errors.New("token: a claim is not UTF-8")
		}
	}
	return nil
}
