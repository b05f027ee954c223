package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// RefreshPrefix begins every refresh token, so that secret scanners find one
// that was committed or logged by mistake.
const RefreshPrefix = "wwr_"

// A refreshToken is opaque to the client. Its user and session find the record and are
// no secrets. Its family proves that the token comes from the session's family. Its
// secret, 256 bits, is the one token of the family. Without the family's part, whoever
// knows a session's id, from an access token, could end the session with a made-up
// refresh token.
type refreshToken struct {
	user    uuid.UUID
	session uuid.UUID
	family  [16]byte
	secret  [32]byte
}

const refreshLength = 16 + 16 + 16 + 32

var errRefreshToken = errors.New("session: not a refresh token")

func newRefreshToken(rand io.Reader, userID, sessionID string) (refreshToken, error) {
	var t refreshToken
	var err error
	if t.user, err = uuid.Parse(userID); err != nil {
		return t, fmt.Errorf("session: user id: %w", err)
	}
	if t.session, err = uuid.Parse(sessionID); err != nil {
		return t, fmt.Errorf("session: id: %w", err)
	}
	if _, err := io.ReadFull(rand, t.family[:]); err != nil {
		return t, fmt.Errorf("session: refresh token: %w", err)
	}
	if _, err := io.ReadFull(rand, t.secret[:]); err != nil {
		return t, fmt.Errorf("session: refresh token: %w", err)
	}
	return t, nil
}

// parseRefreshToken reads the one spelling that String writes.
func parseRefreshToken(s string) (refreshToken, error) {
	var t refreshToken
	encoded, ok := strings.CutPrefix(s, RefreshPrefix)
	if !ok || len(encoded) != base64.RawURLEncoding.EncodedLen(refreshLength) {
		return t, errRefreshToken
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != refreshLength {
		return t, errRefreshToken
	}
	copy(t.user[:], raw)
	copy(t.session[:], raw[16:])
	copy(t.family[:], raw[32:])
	copy(t.secret[:], raw[48:])
	return t, nil
}

func (t refreshToken) userID() string    { return t.user.String() }
func (t refreshToken) sessionID() string { return t.session.String() }

// String is what the client gets.
func (t refreshToken) String() string {
	raw := make([]byte, 0, refreshLength)
	raw = append(raw, t.user[:]...)
	raw = append(raw, t.session[:]...)
	raw = append(raw, t.family[:]...)
	raw = append(raw, t.secret[:]...)
	return RefreshPrefix + base64.RawURLEncoding.EncodeToString(raw)
}

// successor returns the token that follows t under a salt. It takes both to make it
// again.
func (t refreshToken) successor(salt []byte) refreshToken {
	mac := hmac.New(sha256.New, t.secret[:])
	mac.Write([]byte("watchword refresh token successor"))
	mac.Write(salt)
	mac.Sum(t.secret[:0])
	return t
}

// hash is plain SHA-256: a secret has 128 random bits at least, so that a slower hash
// would protect nothing.
func hash(secret []byte) []byte {
	sum := sha256.Sum256(secret)
	return sum[:]
}

// equal reports whether two hashes are equal. A missing one is equal to none.
func equal(a, b []byte) bool { return len(a) == sha256.Size && subtle.ConstantTimeCompare(a, b) == 1 }

// clip shortens s to at most n bytes of valid UTF-8.
func clip(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
