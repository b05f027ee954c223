package keyring

import (
	"bytes"
	"encoding/binary"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/store"
)

// Statement is what a row says about its key, as bytes for a MAC: everything but Sealed,
// which is authenticated by itself, and the MACs.
func Statement(k store.Key) []byte {
	var b []byte
	for _, field := range [][]byte{[]byte(k.ID), []byte(k.Instance), []byte(k.Algorithm), k.PublicJWK} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(field)))
		b = append(b, field...)
	}
	for _, at := range []int64{
		store.Micros(k.CreatedAt), store.Micros(k.ActivateAt), store.Micros(k.RetireAt), store.Micros(k.RemoveAt), store.Micros(k.RevokedAt),
	} {
		b = binary.BigEndian.AppendUint64(b, uint64(at))
	}
	return b
}

// stateMark ends the JWK of each row that is made here. The JWK is in the first MAC of the
// row, so whoever removes the second one cannot pass the row off as one of an older version,
// which has none.
const stateMark = `,"state_mac":true}`

func markState(jwk []byte) []byte { return append(jwk[:len(jwk)-1:len(jwk)-1], stateMark...) }

// NeedsStateMAC reports whether the row of a key is believed only with a StateMAC. Its MAC
// has to be right.
func NeedsStateMAC(k store.Key) bool { return bytes.HasSuffix(k.PublicJWK, []byte(stateMark)) }

// A Voucher authenticates rows for other replicas.
type Voucher interface {
	// Authenticate returns the row with the MACs by which the others know that it is a
	// replica's.
	Authenticate(k store.Key) store.Key
	// Vouched reports whether the row has those MACs.
	Vouched(k store.Key) bool
}

func (r *Ring) authenticate(k store.Key) store.Key {
	k = r.cfg.Peers.Authenticate(k)
	k.SourceMAC = r.cfg.Source.MAC(k.ID, Statement(k))
	return k
}

// Authentic reports whether a process with that source wrote the row.
func Authentic(source keysource.Source, k store.Key) bool {
	return source.Authentic(k.ID, Statement(k), k.SourceMAC)
}

func (r *Ring) authentic(k store.Key) bool { return Authentic(r.cfg.Source, k) }
