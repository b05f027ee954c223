package audit

import (
	"context"
	"encoding/hex"
	"maps"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
)

const (
	// settle is how old an event is when it is sealed, or told to those who follow the trail.
	// Most transactions have committed by then.
	settle = timing.Leeway
	// lookBack is for how long an event that becomes visible late is still looked for: a
	// transaction takes 15 s at most (sqldb.DefaultTimeout), and the clocks of replicas may differ.
	lookBack = 2 * time.Minute
	// idsAtOnce is how many ids are read in one statement.
	idsAtOnce = 5000
)

// A window finds events in the order of their ids, and also those that become visible when later
// ones have been found already.
type window struct {
	store store.Audit
	floor string // no event at or below it is looked for
	// through is up to where all events were found that were visible, and seen are the ids of
	// those that are within lookBack of it.
	through string
	seen    map[string]struct{}
}

// A find is what a window has found.
type find struct {
	events        []store.AuditEvent
	from, through string // up to where it has looked
	more          bool   // there is more to be found at once
}

// next returns up to limit events whose ids are not above upto. It finds them again until take is
// called.
func (w *window) next(ctx context.Context, upto string, limit int) (find, error) {
	middle := min(w.through, upto)
	f := find{from: max(back(middle), w.floor), through: middle, more: true}
	// First those that are late.
	for after := f.from; after < middle; {
		ids, err := w.store.AuditIDs(ctx, after, middle, idsAtOnce)
		if err != nil {
			return f, err
		}
		for _, id := range ids {
			if _, seen := w.seen[id]; !seen {
				late, err := w.store.AuditRange(ctx, after, id, limit-len(f.events))
				if err != nil {
					return f, err
				}
				f.add(w, late)
				if len(f.events) >= limit {
					return f, nil // through stays, so that the others are found next
				}
			}
			after = id
		}
		if len(ids) < idsAtOnce {
			break
		}
	}
	left := limit - len(f.events)
	tail, err := w.store.AuditRange(ctx, max(middle, w.floor), upto, left)
	if err != nil {
		return f, err
	}
	f.add(w, tail)
	if f.through, f.more = upto, len(tail) == left; f.more {
		f.through = tail[len(tail)-1].ID
	}
	return f, nil
}

// add takes those events that the window has not seen.
func (f *find) add(w *window, events []store.AuditEvent) {
	for _, e := range events {
		if _, seen := w.seen[e.ID]; !seen {
			f.events = append(f.events, e)
		}
	}
}

// take says that what was found is done with.
func (w *window) take(f find) {
	for _, e := range f.events {
		w.seen[e.ID] = struct{}{}
	}
	w.move(f.through)
}

// move says up to where all events are found, and forgets what will not be looked at again.
func (w *window) move(through string) {
	w.through = through
	from := back(through)
	maps.DeleteFunc(w.seen, func(id string, _ struct{}) bool { return id <= from })
}

// back returns the bound that lies lookBack before an id. An id that has no time in it has no
// such bound.
func back(id string) string {
	at, ok := idTime(id)
	if !ok {
		return ""
	}
	return idsFrom(at.Add(-lookBack))
}

// idTime returns the time in an id, in milliseconds.
func idTime(id string) (time.Time, bool) {
	if len(id) != 36 || id[8] != '-' {
		return time.Time{}, false
	}
	b, err := hex.DecodeString(id[:8] + id[9:13])
	if err != nil {
		return time.Time{}, false
	}
	var ms int64
	for _, x := range b {
		ms = ms<<8 | int64(x)
	}
	return time.UnixMilli(ms), true
}

// Follow calls do for all events since a time, the earliest first. With forever set it goes on
// with those that come, until ctx ends or do returns an error: an event is told about when it is
// 5 s old, so that most come in order, and one that becomes visible later than that comes after
// others that are newer. It asks the store every second.
func (t *Trail) Follow(ctx context.Context, since time.Time, forever bool, do func([]store.AuditEvent) error) error {
	w := &window{store: t.cfg.Store, floor: idsFrom(since), seen: map[string]struct{}{}}
	w.through = w.floor
	upto := idsFrom(t.cfg.Now().Add(time.Millisecond))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if forever {
			upto = idsFrom(t.cfg.Now().Add(-settle))
		}
		f, err := w.next(ctx, upto, MaxPage)
		if err != nil {
			return err
		}
		if err := do(f.events); err != nil {
			return err
		}
		if w.take(f); f.more {
			continue
		}
		if !forever {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
