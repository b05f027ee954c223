package tiered

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"sync"

	"github.com/watchword-auth/watchword/internal/state"
)

// A sealer puts a MAC before the value of a copy.
type sealer struct {
	log  func() string
	macs sync.Pool // of hash.Hash
}

func newSealer(secret []byte, log func() string) *sealer {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("watchword copies of records"))
	key := mac.Sum(nil)
	return &sealer{log, sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

func (s *sealer) seal(r state.Record) state.Record {
	r.Value = slices.Concat(s.mac(r), r.Value)
	return r
}

// open returns what seal was given. It reports false of what no sealer with this
// secret and log has returned.
func (s *sealer) open(r state.Record) (state.Record, bool) {
	if len(r.Value) < sha256.Size {
		return state.Record{}, false
	}
	mac := r.Value[:sha256.Size]
	r.Value = r.Value[sha256.Size:]
	return r, hmac.Equal(mac, s.mac(r))
}

// mac covers the log and all of a record. The parts of a key have no zero byte, and a
// copy's expiry has whole milliseconds.
func (s *sealer) mac(r state.Record) []byte {
	h := s.macs.Get().(hash.Hash)
	defer s.macs.Put(h)
	h.Reset()
	head := make([]byte, 0, 256)
	for _, part := range []string{s.log(), r.Key.Kind, r.Key.Owner, r.Key.ID} {
		head = append(append(head, part...), 0)
	}
	head = binary.BigEndian.AppendUint64(head, uint64(r.Version))
	head = binary.BigEndian.AppendUint64(head, uint64(r.Expires.UnixMilli()))
	h.Write(head)
	h.Write(r.Value)
	return h.Sum(nil)
}
