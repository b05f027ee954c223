package audit

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/uuid"
)

// ids makes the ids of events: UUIDv7 (RFC 9562 §5.7), whose first 48 bits are the
// event's own time in milliseconds, so that the order of ids is that of times and a
// range of times is a range of ids. The next 12 bits are the part of a millisecond
// (§6.2, method 3). uuid.NewV7 has a clock of its own, which may not agree with ours.
type ids struct {
	mu   sync.Mutex
	last uint64 // the first 60 bits of the newest id, without the version
}

// next returns the id of an event at a time. Events at one and the same time get ids
// in the order of the calls.
func (i *ids) next(at time.Time, random io.Reader) (string, error) {
	var id uuid.UUID
	if _, err := io.ReadFull(random, id[8:]); err != nil {
		return "", fmt.Errorf("audit: no event id: %w", err)
	}
	stamp := millis(at)<<12 | uint64(at.Nanosecond()%1e6)<<12/1e6
	i.mu.Lock()
	if i.last >= stamp && i.last-stamp < 1<<12 {
		stamp = i.last + 1 // less than a millisecond later
	}
	i.last = stamp
	i.mu.Unlock()
	binary.BigEndian.PutUint64(id[:], stamp>>12<<16|7<<12|stamp&0xfff)
	id[8] = id[8]&0x3f | 0x80 // the variant of RFC 9562
	return id.String(), nil
}

// idsFrom returns a bound between ids: those of events at a time, in milliseconds, or
// later are above it, those of earlier events are below it.
func idsFrom(at time.Time) string {
	var id uuid.UUID // of no version, so that it is lower than a UUIDv7 of the same time
	binary.BigEndian.PutUint64(id[:], millis(at)<<16)
	return id.String()
}

// millis are the milliseconds since 1970, in 48 bits: they last until the year 10889.
func millis(t time.Time) uint64 {
	return uint64(min(max(t.UnixMilli(), 0), 1<<48-1))
}
