package tiered

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"

	"github.com/watchword-auth/watchword/internal/state"
)

// Who can write to Redis must not be able to make up a record: a session's says who
// somebody is. So each copy has a MAC, under a key that is made of the generation,
// which stands in SQL alone, and of the cluster's secret. Redis knows a generation
// by a name that is made of it.

var errForged = errors.New("a copy in redis was not made by a replica with this cluster.secret")

// copyName is what Redis knows a generation by.
func copyName(generation string) string {
	sum := sha256.Sum256([]byte("watchword generation name " + generation))
	return hex.EncodeToString(sum[:16])
}

// copyKey is the key of a generation's MACs.
func (s *Store) copyKey(generation string) []byte {
	mac := hmac.New(sha256.New, []byte("watchword generation key "+generation))
	mac.Write(s.secret)
	return mac.Sum(nil)
}

// seal returns r as it is copied.
func (v *view) seal(r state.Record) state.Record {
	r.Value = append(v.mac(r), r.Value...)
	return r
}

// open returns the record that was copied.
func (v *view) open(copied state.Record) (state.Record, error) {
	if len(copied.Value) < sha256.Size {
		return state.Record{}, errForged
	}
	r, mac := copied, copied.Value[:sha256.Size]
	r.Value = copied.Value[sha256.Size:]
	if !hmac.Equal(mac, v.mac(r)) {
		return state.Record{}, errForged
	}
	return r, nil
}

// mac covers all of r. The parts of a key have no zero byte; copies know whole
// milliseconds.
func (v *view) mac(r state.Record) []byte {
	mac := hmac.New(sha256.New, v.key)
	head := make([]byte, 0, 128)
	for _, part := range []string{r.Key.Kind, r.Key.Owner, r.Key.ID} {
		head = append(append(head, part...), 0)
	}
	head = binary.BigEndian.AppendUint64(head, uint64(r.Version))
	head = binary.BigEndian.AppendUint64(head, uint64(r.Expires.UnixMilli()))
	mac.Write(head)
	mac.Write(r.Value)
	return mac.Sum(nil)
}
