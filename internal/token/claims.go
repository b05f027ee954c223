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

// A Kind of token is its typ (RFC 8725 §3.11), which keeps a token of one kind from being
// taken for one of another.
type Kind string

// AccessToken is the kind of Access (RFC 9068 §2.1).
const AccessToken Kind = "at+jwt"

// kinds are all that a Signer signs.
var kinds = []Kind{AccessToken}

// A Token is the kind and the claims of a token that is to be signed.
type Token interface {
	Kind() Kind
	// Encode returns the claims as a JSON object, or an error if they lack what the
	// kind requires.
	Encode() ([]byte, error)
}

// FirstParty is the client_id of tokens that the server's own login issues.
const FirstParty = "watchword"

// CanaryAudience is the audience of the tokens with which replicas measure revocation. They
// are sent to URLs at which there may be no replica, so no deployment may have it among its
// own audiences.
const CanaryAudience = "urn:watchword:canary"

// Access are the claims of an access token (RFC 7519 §4.1, RFC 9068 §2.2). All but
// SessionID, NotBefore, AuthTime, AMR, ACR, EmailVerified and User are required.
type Access struct {
	Issuer    string    // iss
	Subject   string    // sub: the user's id
	Audience  []string  // aud
	ClientID  string    // client_id: the client that the token is issued to
	ID        string    // jti: see NewID
	SessionID string    // sid; left out when empty
	Epoch     int64     // epoch: the user's, as of issuing
	IssuedAt  time.Time // iat, or iat_exact beside an iat that is dated back to NotBefore
	NotBefore time.Time // nbf; left out when zero
	ExpiresAt time.Time // exp
	AuthTime  time.Time // auth_time: when the user authenticated last; left out when zero
	AMR       []string  // amr: the methods by which the user authenticated (RFC 8176); left out when empty
	ACR       string    // acr: how strong that was; left out when empty

	// EmailVerified reports whether the user's e-mail address was proven to be theirs
	// (OpenID Connect Core §5.1); left out when nil, as for a token without an address.
	EmailVerified *bool

	// User are the user's claims and the user_info fields, by claim name. A
	// Reserved name makes Encode fail.
	User map[string]string
}

// Kind returns AccessToken.
func (Access) Kind() Kind { return AccessToken }

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

// IsID reports whether s is a jti exactly as NewID writes it. A revocation goes by the
// digest of the id, and another spelling of the same bits has another digest.
func IsID(s string) bool {
	id, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(id) == idBytes && len(s) == base64.RawURLEncoding.EncodedLen(idBytes)
}

// Encode returns the claims as JSON, in the order of their names, with times in whole
// seconds. A fraction is dropped, so that no token lives longer than ExpiresAt.
func (c Access) Encode() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	m := make(map[string]any, 13+len(c.User))
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
	m["client_id"] = c.ClientID
	if len(c.Audience) == 1 {
		m["aud"] = c.Audience[0]
	}
	m["iat"], m["exp"], m["epoch"] = c.IssuedAt.Unix(), c.ExpiresAt.Unix(), c.Epoch
	if !c.NotBefore.IsZero() {
		m["nbf"] = c.NotBefore.Unix()
		if c.NotBefore.Before(c.IssuedAt) {
			// Many libraries refuse an iat in their future as they do nbf. What is revoked by
			// the moment at which it was issued needs that moment all the same.
			m["iat"], m["iat_exact"] = c.NotBefore.Unix(), c.IssuedAt.Unix()
		}
	}
	if !c.AuthTime.IsZero() {
		m["auth_time"] = c.AuthTime.Unix()
	}
	if len(c.AMR) > 0 {
		m["amr"] = c.AMR // an array always, unlike aud (OpenID Connect Core §2)
	}
	if c.ACR != "" {
		m["acr"] = c.ACR
	}
	if c.EmailVerified != nil {
		m["email_verified"] = *c.EmailVerified
	}
	if c.SessionID != "" {
		m["sid"] = c.SessionID
	}
	return json.Marshal(m)
}

func (c Access) check() error {
	switch {
	case c.Issuer == "" || c.Subject == "" || c.ID == "" || c.ClientID == "":
		return errors.New("token: iss, sub, jti and client_id are required")
	case len(c.Audience) == 0 || slices.Contains(c.Audience, ""):
		return errors.New("token: aud is required")
	case c.IssuedAt.Unix() <= 0 || c.ExpiresAt.Unix() <= c.IssuedAt.Unix():
		return errors.New("token: exp must be at least a second after iat")
	case c.Epoch < 0:
		return errors.New("token: an epoch is not negative")
	case slices.Contains(c.AMR, ""):
		return errors.New("token: a method of authentication has a name")
	}
	// encoding/json would write U+FFFD, and make one subject of two.
	for _, s := range slices.Concat([]string{c.Issuer, c.Subject, c.ID, c.ClientID, c.SessionID, c.ACR}, c.Audience, c.AMR) {
		if !utf8.ValidString(s) {
			return errors.New("token: a claim is not UTF-8")
		}
	}
	return nil
}
