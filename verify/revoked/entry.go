package revoked

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"
)

// A Kind is what an entry revokes.
type Kind string

const (
	Key     Kind = "kid"  // every token that the key signed
	User    Kind = "user" // a user's tokens up to an epoch or a moment
	Session Kind = "sid"  // the tokens of one session
	Token   Kind = "jti"  // one token
)

// kinds are all of them, in the order in which a token is checked. A kind's index is its
// compact form.
var kinds = [...]Kind{Key, User, Session, Token}

func (k Kind) index() int {
	for i := range kinds {
		if kinds[i] == k {
			return i
		}
	}
	return -1
}

// An ID stands for what is revoked, without revealing it.
type ID [16]byte

// Digest returns the ID of a key, user, session or token: the first 128 bits of SHA-256
// over the kind, a zero byte, and the value. Because of the kind, a session never matches a
// token of the same name.
//
// 128 bits are enough. An entry revokes too much if a valid token has the ID of another
// token's entry. Since the server draws all these names, an attacker cannot choose them, and
// a collision between two names of the attacker's own gains nothing. By chance it happens
// among a million entries and a billion tokens with a probability of 2^-78.
func Digest(kind Kind, value string) ID {
	var buf [128]byte // UUIDs and kids fit; a longer value costs one allocation
	b := append(buf[:0], kind...)
	b = append(b, 0)
	b = append(b, value...)
	sum := sha256.Sum256(b)
	return ID(sum[:len(ID{})])
}

// MarshalText writes unpadded base64url.
func (id ID) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, id[:]), nil
}

// UnmarshalText reads what MarshalText writes, and nothing else.
func (id *ID) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(b) != len(id) || len(text) != base64.RawURLEncoding.EncodedLen(len(id)) {
		return fmt.Errorf("revoked: %q is not the base64url of %d bytes", text, len(id))
	}
	copy(id[:], b)
	return nil
}

// An Entry is one entry of the feed. Its JSON form is part of the HTTP contract:
//
//	{"seq":7,"kind":"user","id":"<base64url>","epoch":3,"issued_before":1700000000,"exp":1700003600}
type Entry struct {
	Seq  int64 `json:"seq"` // place in the log, from 1
	Kind Kind  `json:"kind"`
	ID   ID    `json:"id"`
	// Epoch and IssuedBefore are for User alone: it revokes tokens with a lower epoch, and
	// tokens whose iat is earlier. Zero revokes none.
	Epoch        int64 `json:"epoch,omitempty"`
	IssuedBefore int64 `json:"issued_before,omitempty"` // seconds since 1970
	// ExpiresAt is when the last token that the entry concerns has expired, in seconds since
	// 1970. After that the entry is not needed.
	ExpiresAt int64 `json:"exp"`
}

// Check returns what is wrong with an entry, or nil. An unknown kind is wrong, too: a
// reader that does not understand an entry must not count as knowing what was revoked.
func (e Entry) Check() error {
	switch {
	case e.Seq < 1:
		return fmt.Errorf("revoked: entry with sequence number %d", e.Seq)
	case e.Kind.index() < 0:
		return fmt.Errorf("revoked: entry %d is of the unknown kind %q", e.Seq, e.Kind)
	case e.ExpiresAt <= 0:
		return fmt.Errorf("revoked: entry %d has no expiry", e.Seq)
	case e.Epoch < 0 || e.IssuedBefore < 0:
		return fmt.Errorf("revoked: entry %d has a negative epoch or time", e.Seq)
	case (e.Kind == User) != (e.Epoch > 0 || e.IssuedBefore > 0):
		return fmt.Errorf("revoked: entry %d: a user, and nothing else, is revoked up to an epoch or a time", e.Seq)
	}
	return nil
}

// Former names, in place of a log, the entries that a replica has read in logs before the
// present one. Replicas that start ask for them. No log has this name.
const Former = "~former"

// Version is the highest version of the feed that this package knows. A version says which
// kinds of entries there are; version 1 has Key, User, Session and Token. A reader names the
// highest one that it knows, as the version of its query, and is answered in that one or a
// lower one. What an entry of a later kind revokes, an older reader is told in entries of its
// own version that revoke exactly the same tokens (docs/revocation.md).
const Version = 1

// CheckVersion returns what is wrong with the version that a page, or an event of a stream,
// names, or nil. 0 stands for none, which is version 1. What is of a later version than was
// asked for may revoke tokens in a way that this reader does not know.
func CheckVersion(version int) error {
	if version < 0 || version > Version {
		return fmt.Errorf("revoked: this is version %d of the feed; this reader knows version %d and must be updated", version, Version)
	}
	return nil
}

// A Page is a part of the feed, as JSON.
type Page struct {
	// Version is the version of the feed that the page is in; 0: it does not say, and is in
	// version 1.
	Version int `json:"version,omitempty"`
	// Log is the id of the log. A reader that knew another one begins again from 0, and
	// forgets nothing.
	Log string `json:"log"`
	// Head is the number of the log's last entry, as of AsOf.
	Head int64 `json:"head"`
	// AsOf is when the sender last confirmed the head with the database, by the
	// sender's clock, in milliseconds.
	AsOf time.Time `json:"as_of"`
	// Age is how long before the sending AsOf was, in milliseconds. A reader goes by it, so
	// that the sender's clock does not matter.
	Age int64 `json:"age_ms"`
	// Waited is how long the sender held the request back until there was something new, in
	// milliseconds. Nil: it never holds requests back. Age counts from as much later than
	// when the reader asked.
	Waited *int64 `json:"waited_ms,omitempty"`
	// Heartbeat is how often the sender confirms the head, and sends it to the readers of
	// its streams, in milliseconds. 0: it does not say.
	Heartbeat int64 `json:"heartbeat_ms,omitempty"`
	// Snapshot: the page begins at the beginning of the log, although the reader asked for a
	// later place, because that was in another log.
	Snapshot bool    `json:"snapshot"`
	Entries  []Entry `json:"entries"` // by Seq; expired ones may be missing
	// More: the reader should ask at once for what comes after the last entry. Otherwise it
	// has everything up to Head.
	More bool `json:"more"`
}

// Milliseconds returns a member of a Page, such as Age, as a duration. What is above 34 years is
// taken for that: a duration that overflows would be a negative one, and a confirmation with a
// negative age would hold for ever.
func Milliseconds(n int64) time.Duration { return time.Duration(min(n, 1<<40)) * time.Millisecond }

// Age returns how long ago a time was. Of the monotonic and the wall clock it takes the one
// that says more, because the monotonic one may have stood still with the machine.
func Age(asOf, now time.Time) time.Duration {
	return max(now.Sub(asOf), now.Round(0).Sub(asOf.Round(0)))
}

// Next returns the number after which to go on reading.
func (p Page) Next() int64 {
	last := int64(0)
	if n := len(p.Entries); n > 0 {
		last = p.Entries[n-1].Seq
	}
	if p.More {
		return last
	}
	return max(last, p.Head)
}
