package sqlstore

import (
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

func TestTimes(t *testing.T) {
	if store.Micros(time.Time{}) != 0 || !timeOf(0).IsZero() {
		t.Error("the zero time is not zero")
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("", 3600))
	if got := timeOf(store.Micros(at)); !got.Equal(at.Truncate(time.Microsecond)) || got.Location() != time.UTC {
		t.Errorf("%v became %v", at, got)
	}
}
