package keyring

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/verify/revoked"
)

// A tombstone is kept for as long as a row could let its key live, seen how often ever; what
// another replica tells is kept for as long as that one keeps it.
func TestTombstones(t *testing.T) {
	c := &clock{now: start}
	ts, other := NewTombstones(time.Hour, c.Now), NewTombstones(time.Hour, c.Now)
	ts.Add("a", start)
	ts.Add("b", start.Add(2*time.Hour))
	for range 3 {
		c.Move(20 * time.Minute)
		ts.Add("a", start)
		other.Merge(ts.All())
	}
	if !ts.Has("a") || !ts.Has("b") || ts.Has("c") || !slices.Equal(other.All(), ts.All()) {
		t.Errorf("%v, the other has %v", ts.All(), other.All())
	}
	c.Move(time.Second)
	ts.Merge(nil)
	if ts.Has("a") || !ts.Has("b") {
		t.Errorf("afterwards: %v", ts.All())
	}
	// The revocation log may say later that an entry is needed for longer, as that of a signing secret.
	ts.Add("b", start.Add(100*time.Hour))
	c.Move(50 * time.Hour)
	if ts.Merge(nil); !ts.Has("b") || ts.Len() != 1 {
		t.Errorf("a tombstone ends before its entry: %v", ts.All())
	}
	if c.Move(51 * time.Hour); ts.Len() != 0 {
		t.Errorf("%d are counted of which none is kept any more", ts.Len())
	}
	if other.Merge([]Tombstone{{revoked.Digest(revoked.Key, "late"), start.Unix()}}); other.Has("late") {
		t.Error("one that has ended is taken in")
	}
}

// However many there are, an answer has a bound, and the shortest-lived go first.
func TestManyTombstones(t *testing.T) {
	c := &clock{now: start}
	ts := NewTombstones(0, c.Now)
	for i := range maxTombstones + 10 {
		ts.Add(fmt.Sprint(i), start.Add(time.Duration(i)*time.Second))
	}
	all := ts.All()
	if len(all) != maxTombstones || all[len(all)-1].End != start.Add(10*time.Second).Unix() {
		t.Errorf("%d, the last until %v", len(all), all[len(all)-1].End)
	}
	if !ts.Has("0") {
		t.Error("one is forgotten")
	}
}
