package store

import "time"

// Micros returns t as stores keep it and MACs over records write it: in microseconds
// since 1970, UTC. The zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}
