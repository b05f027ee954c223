package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
)

// maxSealed is how many events one seal covers, at most: it takes 49 bytes for each.
const maxSealed = 1000

// maxID is how long the id of an event may be, in bytes. Those of this version have 36.
const maxID = 64

// A digest is a SHA-256.
type digest [sha256.Size]byte

// A link is the content of a seal. The digest of each is in the one after it, so that they
// are a chain.
type link struct {
	seq int64
	at  time.Time // by the database's clock
	// first is the lowest number of a seal that has to be there. Those before it, and events whose id
	// is lower than that of an event at swept, may have been deleted, because they were too old.
	first int64
	swept time.Time
	// The seal covers what was there when it was made, was in no seal before it, and has an id
	// above from and not above through.
	from, through string
	previous      digest // of the seal before it; zero: it is the first one ever
	entries       []entry
}

// An entry names an event, and says what it is.
type entry struct {
	id string
	digest
}

// The texts with which what is hashed begins.
const (
	labelEvent = "watchword/audit/event/v1"
	labelSeal  = "watchword/audit/seal/v1"
	placeSeal  = "audit_seals" // of seal.Box.MAC; the number is in the content
)

// entryOf returns the entry of an event, as the store has it.
func entryOf(e store.AuditEvent) entry {
	b := append(make([]byte, 0, 512), labelEvent...)
	for _, text := range [...]string{e.ID, e.Actor, e.Action, e.Target, e.Outcome, e.Address, e.Detail} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(store.Micros(e.At)))
	return entry{e.ID, sha256.Sum256(b)}
}

// encode returns the content of the seal.
func (l link) encode() []byte {
	b := make([]byte, 0, 256+49*len(l.entries))
	for _, n := range [...]int64{l.seq, store.Micros(l.at), l.first, store.Micros(l.swept)} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	b = appendID(appendID(b, l.from), l.through)
	b = append(b, l.previous[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.entries)))
	for _, e := range l.entries {
		b = append(appendID(b, e.id), e.digest[:]...)
	}
	return b
}

// appendID writes an id: a UUID as 16 bytes, and another text as it is.
func appendID(b []byte, id string) []byte {
	if u, err := uuid.Parse(id); err == nil && u.String() == id {
		return append(append(b, 0xff), u[:]...)
	}
	return append(append(b, byte(len(id))), id...)
}

var errLink = errors.New("audit: this is not the content of a seal")

// parseLink is the reverse of encode.
func parseLink(b []byte) (link, error) {
	r := reader{b: b}
	l := link{seq: r.int(), at: timeOf(r.int()), first: r.int(), swept: timeOf(r.int()), from: r.id(), through: r.id()}
	copy(l.previous[:], r.take(len(l.previous)))
	n := binary.BigEndian.Uint32(append(r.take(4), 0, 0, 0, 0))
	if r.bad || n > maxSealed {
		return link{}, errLink
	}
	l.entries = make([]entry, n)
	for i := range l.entries {
		l.entries[i].id = r.id()
		copy(l.entries[i].digest[:], r.take(sha256.Size))
	}
	if r.bad || len(r.b) > 0 {
		return link{}, errLink
	}
	return l, nil
}

// A reader reads the content of a seal. bad is set when it ends too early.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad = r.bad || len(r.b) < n; r.bad {
		return nil
	}
	taken := r.b[:n:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) int() int64 {
	if b := r.take(8); !r.bad {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (r *reader) id() string {
	size := r.take(1)
	switch {
	case r.bad:
		return ""
	case size[0] == 0xff:
		if b := r.take(16); !r.bad {
			return uuid.UUID(b).String()
		}
		return ""
	case size[0] > maxID:
		r.bad = true
		return ""
	}
	return string(r.take(int(size[0])))
}

// timeOf is the reverse of store.Micros.
func timeOf(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// A Head names a seal of the chain. Whoever has noted it elsewhere can tell later whether the
// chain still has that seal, and with it everything before.
type Head struct {
	Seq    int64
	Digest string // in hex
}

// ParseHead reads what Head.String writes.
func ParseHead(text string) (Head, error) {
	number, sum, _ := strings.Cut(text, ":")
	seq, err := strconv.ParseInt(number, 10, 64)
	raw, wrong := hex.DecodeString(sum)
	if err != nil || wrong != nil || seq < 1 || len(raw) != sha256.Size {
		return Head{}, errors.New("a seal is written as its number, a colon, and its digest of 64 hexadecimal digits")
	}
	return Head{seq, hex.EncodeToString(raw)}, nil
}

// String writes the number, a colon and the digest; nothing for the zero Head.
func (h Head) String() string {
	if h.Seq == 0 {
		return ""
	}
	return strconv.FormatInt(h.Seq, 10) + ":" + h.Digest
}

// digestOf is that of a seal, which the next one has, and which its MAC is over.
func digestOf(content []byte) digest {
	h := sha256.New()
	h.Write([]byte(labelSeal))
	h.Write(content)
	return digest(h.Sum(nil))
}

func (d digest) String() string { return hex.EncodeToString(d[:]) }

// sealed makes the seal of a link.
func (l link) sealed(box *seal.Box) (store.AuditSeal, digest) {
	content := l.encode()
	d := digestOf(content)
	return store.AuditSeal{Seq: l.seq, Content: content, MAC: box.MAC(d[:], placeSeal)}, d
}

// openSeal returns what a seal says. It is believed only if problem is empty.
func openSeal(box *seal.Box, s store.AuditSeal) (l link, d digest, problem string) {
	d = digestOf(s.Content)
	l, err := parseLink(s.Content)
	switch {
	case err != nil || l.seq != s.Seq:
		return link{seq: s.Seq}, d, "its content is not that of this seal"
	case !box.Knows(s.MAC):
		return l, d, "it was made under a storage key or a cluster.secret that this configuration does not have"
	case !box.Authentic(s.MAC, d[:], placeSeal):
		return l, d, "it has been changed: its MAC is wrong"
	}
	return l, d, ""
}
