package revoked

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"
)

// A Kind says what an entry takes back.
type Kind string

const (
	Key     Kind = "kid"  // every token that the key signed
	User    Kind = "user" // a user's tokens up to an epoch or a moment
	Session Kind = "sid"  // the tokens of one session
	Token   Kind = "jti"  // one token
)

// kinds in the order in which a token is asked; an index here is a kind's
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

// An ID stands for what is taken back without telling it.
type ID [16]byte

// Digest returns the ID of a key, user, session or token: the first 128 bits of
// SHA-256 over the kind, a zero byte, and the value. The kind in front keeps a
// session from ever matching a token of the same name.
//
// 128 bits are enough, because nobody gains by a collision, only by a second
// preimage: an entry revokes too much if a valid token has the ID of another's
// entry, and all these names are drawn by the server. Among a million entries
// and a billion tokens that happens by chance with a probability of 2^-78.
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

// An Entry is one line of the feed. Its JSON form is part of the HTTP contract:
//
//	{"seq":7,"kind":"user","id":"<base64url>","epoch":3,"issued_before":1700000000,"exp":1700003600}
type Entry struct {
	Seq  int64 `json:"seq"` // place in the log, from 1
	Kind Kind  `json:"kind"`
	ID   ID    `json:"id"`
	// Epoch and IssuedBefore are for User alone: tokens with a lower epoch, and
	// tokens whose iat is earlier. Zero says nothing.
	Epoch        int64 `json:"epoch,omitempty"`
	IssuedBefore int64 `json:"issued_before,omitempty"` // seconds since 1970
	// ExpiresAt is when the last token that the entry concerns has expired, in
	// seconds since 1970. Then the entry means nothing.
	ExpiresAt int64 `json:"exp"`
}

// Check says what is wrong with an entry, nil if nothing is. A kind that is not
// known here is wrong, too: who cannot understand what was taken back must not
// believe that he knows it.
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

// A Page is a part of the feed, as JSON.
type Page struct {
	// Log names the log. A reader who knew another one begins again from 0, and
	// forgets nothing.
	Log string `json:"log"`
	// Head is the last number that was given as of AsOf.
	Head int64 `json:"head"`
	// AsOf is when the sender last confirmed the head with the database, by the
	// sender's clock, in milliseconds.
	AsOf time.Time `json:"as_of"`
	// Age is how long before the sending that was, in milliseconds. A reader
	// reckons with it, so that it does not matter what the sender's clock says.
	Age int64 `json:"age_ms"`
	// Waited is for how long the sender held the request back until there was
	// something to tell, in milliseconds; nil if it did not think of it. A reader
	// knows from it that AsOf lies so much after his asking.
	Waited *int64 `json:"waited_ms,omitempty"`
	// Heartbeat is how often the sender confirms the head, in milliseconds, and sends
	// one to the readers of its streams; 0 if it does not say.
	Heartbeat int64 `json:"heartbeat_ms,omitempty"`
	// Snapshot says that the page begins at the beginning of the log, although
	// the reader asked for a later place: his was of another log.
	Snapshot bool    `json:"snapshot"`
	Entries  []Entry `json:"entries"` // by Seq; expired ones may be missing
	// More says that the reader should ask again at once after the last entry.
	// Otherwise he has everything up to Head.
	More bool `json:"more"`
}

// Age is how old, now, is what was true as of a time, by the clock that says more: the
// monotonic one may have stood still with the machine.
func Age(asOf, now time.Time) time.Duration {
	return max(now.Sub(asOf), now.Round(0).Sub(asOf.Round(0)))
}

// Next is where to go on reading after this page.
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
