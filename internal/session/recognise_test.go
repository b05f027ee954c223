package session

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/state"
)

// copying is a state that hands out the copies that it was given, and counts.
type copying struct {
	state.Store
	copies      map[state.Key]state.Record
	gets, kept  int
	asOf        time.Time
	afterCopy   func() // nil: nothing
	unavailable bool
}

func (c *copying) Copy(key state.Key) (state.Record, bool) {
	r, found := c.copies[key]
	if c.afterCopy != nil {
		c.afterCopy()
	}
	return r, found
}

func (c *copying) Keep(asOf time.Time, r state.Record) {
	c.kept++
	c.asOf = asOf
	c.copies[r.Key] = r
}

func (c *copying) Get(ctx context.Context, key state.Key) (state.Record, error) {
	c.gets++
	if c.unavailable {
		return state.Record{}, state.ErrUnavailable
	}
	return c.Store.Get(ctx, key)
}

// A desk recognises sessions over a state with copies.
type desk struct {
	bench
	state   *copying
	clear   bool // what Clear answers
	cleared []Session
	revoked bool // what Revoked answers
	may     error
	asked   int // how often may was
}

func newDesk(t *testing.T) *desk {
	d := &desk{clear: true}
	d.bench = newBench(t, func(c *Config) {
		d.state = &copying{Store: c.State, copies: map[state.Key]state.Record{}}
		c.State = d.state
		c.Clear = func(s Session) bool { d.cleared = append(d.cleared, s); return d.clear }
		c.Revoked = func(string) bool { return d.revoked }
	})
	return d
}

// wants recognises a session, and compares how often the state and may were asked.
func (d *desk) wants(t *testing.T, id string, want error, gets, asked int) {
	t.Helper()
	d.state.gets, d.asked = 0, 0
	s, err := d.Recognise(t.Context(), d.user, id, func(context.Context, Session) error { d.asked++; return d.may })
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("got %v, want %v", err, want)
	}
	if wantID := map[bool]string{true: id}[want == nil]; s.ID != wantID {
		t.Errorf("got session %q, want %q", s.ID, wantID)
	}
	if d.state.gets != gets || d.asked != asked {
		t.Errorf("the record was read %d times and may asked %d times, want %d and %d", d.state.gets, d.asked, gets, asked)
	}
}

// The first look reads the record and asks, the next ones take the copy.
func TestRecogniseByACopy(t *testing.T) {
	d := newDesk(t)
	s, _ := d.start(t)
	d.wants(t, s.ID, nil, 1, 1)
	if d.state.kept != 1 || !d.state.asOf.Equal(d.clock.Now()) {
		t.Errorf("kept %d times as of %v", d.state.kept, d.state.asOf)
	}
	d.wants(t, s.ID, nil, 0, 0)
	d.wants(t, s.ID, nil, 0, 0)
	if n := len(d.cleared); n != 2 || d.cleared[1].UserID != d.user || d.cleared[1].Epoch != 7 || d.cleared[1].CreatedAt.IsZero() {
		t.Errorf("cleared were %+v", d.cleared)
	}
	d.wants(t, uuid.NewString(), state.ErrNotFound, 1, 0)
	d.wants(t, "not an id", state.ErrNotFound, 0, 0)
}

// A copy counts only while the view vouches for its session, also if that changes
// while the copy is on its way. The record itself then decides, and may.
func TestACopyCountsOnlyWhileClear(t *testing.T) {
	d := newDesk(t)
	s, _ := d.start(t)
	d.wants(t, s.ID, nil, 1, 1)
	d.state.afterCopy = func() { d.clear = false }
	d.wants(t, s.ID, nil, 1, 1)
	d.may = ErrInvalid
	d.wants(t, s.ID, ErrInvalid, 1, 1)
	d.state.afterCopy, d.may = func() { d.clear, d.revoked = false, true }, nil
	d.wants(t, s.ID, state.ErrNotFound, 0, 0)

	// Nor without a view at all.
	d.state.afterCopy, d.revoked, d.clear = nil, false, true
	d.wants(t, s.ID, nil, 0, 0)
	d.Clear = nil
	d.wants(t, s.ID, nil, 1, 1)
}

// The record of a session that the user's epoch has ended may be there for days, and
// nobody lists it any more: may knows, and no copy is kept of what it refuses.
func TestNoCopyOfWhatMayRefuses(t *testing.T) {
	d := newDesk(t)
	s, _ := d.start(t)
	d.may = ErrInvalid
	for range 2 {
		d.wants(t, s.ID, ErrInvalid, 1, 1)
	}
	if d.state.kept != 0 {
		t.Error("a copy was kept")
	}
}

// A session that has ended is not live: stopped, deleted, past its absolute end or
// lain idle for too long; whatever a copy of it says, or if the copy itself says so.
func TestAnEndedSessionIsNotLive(t *testing.T) {
	for name, end := range map[string]func(*desk, Session) error{
		"stopped":  func(d *desk, s Session) error { return d.Stop(t.Context(), d.user, s.ID) },
		"deleted":  func(d *desk, s Session) error { return d.End(t.Context(), d.user, s.ID) },
		"past end": func(d *desk, s Session) error { d.clock.advance(d.TTL); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			s, _ := d.start(t)
			d.wants(t, s.ID, nil, 1, 1)
			d.clear = false
			if err := end(d, s); err != nil {
				t.Fatal(err)
			}
			d.wants(t, s.ID, state.ErrNotFound, 1, 0)

			d.clear = true
			k := key(d.user, s.ID)
			if r, err := d.state.Store.Get(t.Context(), k); err == nil {
				d.state.copies[k] = r // of the stopped record
			} else if name == "deleted" {
				return // its copy is the view's to refuse
			}
			d.wants(t, s.ID, state.ErrNotFound, 1, 0)
		})
	}
	t.Run("idle", func(t *testing.T) {
		d := newDesk(t)
		d.Idle = time.Minute
		s, _ := d.start(t)
		d.wants(t, s.ID, nil, 1, 1)
		clear(d.state.copies) // a copy does not outlive its record: package tiered holds to that
		d.clock.advance(time.Minute)
		d.wants(t, s.ID, state.ErrNotFound, 1, 0)
	})
}

// A copy that is no session's, or another one's, does not count; a record that cannot
// be read is nobody's session.
func TestACopyThatCannotBeRead(t *testing.T) {
	d := newDesk(t)
	s, _ := d.start(t)
	other, _ := d.start(t)
	k := key(d.user, s.ID)
	d.state.copies[k] = state.Record{Key: k, Value: []byte("garbage")}
	d.wants(t, s.ID, nil, 1, 1)
	d.wants(t, other.ID, nil, 1, 1)
	d.state.copies[k] = d.state.copies[key(d.user, other.ID)]
	d.wants(t, s.ID, nil, 1, 1)
	if _, err := d.state.Put(t.Context(), k, []byte("garbage"), time.Hour); err != nil {
		t.Fatal(err)
	}
	d.clear = false
	d.wants(t, s.ID, state.ErrNotFound, 1, 0)
}

// Without the database a copy will do, and nothing else does.
func TestRecogniseWithoutTheDatabase(t *testing.T) {
	d := newDesk(t)
	s, _ := d.start(t)
	d.wants(t, s.ID, nil, 1, 1)
	d.state.unavailable = true
	d.wants(t, s.ID, nil, 0, 0)
	d.clear = false
	d.wants(t, s.ID, state.ErrUnavailable, 1, 0)
}

// A state without copies is read.
func TestRecogniseWithoutCopies(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Clear = func(Session) bool { return true } })
	s, _ := b.start(t)
	got, err := b.Recognise(t.Context(), b.user, s.ID, always)
	if err != nil || got.ID != s.ID {
		t.Errorf("got %+v, %v", got, err)
	}
}
