package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/store"
)

// maxProblems is how many problems a Report has, at most. It counts all.
const maxProblems = 100

// eventsAtOnce is how many events a check reads in one statement.
const eventsAtOnce = 1000

// A Report is what a check of the whole trail has found.
type Report struct {
	Seals  int // that were checked
	Events int // that are there, and as they were sealed
	// Waiting is how many events are there that no seal covers yet, because they are too young.
	Waiting int
	// Newest is the newest seal, and SealedAt is when it was made.
	Newest   Head
	SealedAt time.Time
	// Swept: events from before may be missing, because they were too old. Zero: none may.
	Swept time.Time
	// Found is how many problems there are. The first ones are in Problems.
	Found    int
	Problems []Problem
}

// A Problem is a difference between the trail and its seals.
type Problem struct {
	Seal  int64  // 0: it is about no seal
	Event string // id; empty: it is about a seal
	Text  string
}

func (r *Report) problem(seal int64, event, format string, args ...any) {
	if r.Found++; len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, Problem{seal, event, fmt.Sprintf(format, args...)})
	}
}

// ErrNoChainKey: there is no key under which seals could be checked.
var ErrNoChainKey = errors.New("the audit trail is not sealed, because there is no key for it: set storage.key or cluster.secret")

// Verify reads the whole trail and all its seals, and reports what has been changed, deleted or
// added since it was sealed. noted is a seal whose number and digest were noted before, elsewhere:
// it must still be in the chain. Without one, a chain whose newest seals are gone, together with
// their events, looks whole. The zero Head: none was noted.
func (c *Chain) Verify(ctx context.Context, noted Head) (Report, error) {
	return c.verify(ctx, noted, false)
}

// A check goes through the seals in the order of their numbers and through the events in that of
// their ids, both once. It keeps what it has of one and not yet of the other: about as much as was
// written in lookBack.
type check struct {
	*Chain
	report Report
	noted  Head

	last     link // the seal that was read last, and its digest
	digest   digest
	trusted  link                   // the last one that is authentic
	present  int64                  // the number of the first seal that is there
	expected map[string]expectation // sealed, and not read yet
	// unsealed are events that were read and are in no seal that was. All but a few are younger
	// than the newest seal, unless somebody has added them.
	unsealed map[string]digest
	missing  []missing
	cursor   string // events up to this id have been read
}

// A missing event was not there when it should have been read.
type missing struct {
	id string
	expectation
}

// An expectation is what a seal says of an event.
type expectation struct {
	digest
	seal int64
}

func (c *Chain) verify(ctx context.Context, noted Head, gently bool) (Report, error) {
	if c.cfg.Box == nil {
		return Report{}, ErrNoChainKey
	}
	// Seals that are made from now on are not waited for.
	end, now, err := c.cfg.Store.LastAuditSeal(ctx)
	if err != nil {
		return Report{}, err
	}
	k := &check{Chain: c, noted: noted, expected: map[string]expectation{}, unsealed: map[string]digest{}}
	for {
		began := time.Now()
		seals, err := c.cfg.Store.AuditSeals(ctx, k.last.seq, sealsAtOnce)
		if err != nil {
			return Report{}, err
		}
		for _, s := range seals {
			if s.Seq > end.Seq {
				break
			}
			k.seal(s)
		}
		more := len(seals) == sealsAtOnce && k.last.seq < end.Seq
		// The events that no later seal may have.
		upto := string(utf8.MaxRune)
		if more {
			upto = k.trusted.from
		}
		if err := k.events(ctx, upto); err != nil {
			return Report{}, err
		}
		if !more {
			break
		}
		if gently { // so that it takes a fifth of the time of one connection
			if err := sleep(ctx, min(4*time.Since(began), time.Second)); err != nil {
				return Report{}, err
			}
		}
	}
	err = k.finish(ctx, now)
	return k.report, err
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// seal takes the next seal.
func (k *check) seal(s store.AuditSeal) {
	l, d, problem := openSeal(k.cfg.Box, s)
	if k.present == 0 {
		k.present = s.Seq
	} else if s.Seq != k.last.seq+1 {
		k.report.problem(s.Seq, "", "seals %d to %d are missing", k.last.seq+1, s.Seq-1)
	} else if problem == "" && l.previous != k.digest {
		k.report.problem(s.Seq, "", "seal %d does not follow seal %d: one of them has been replaced", s.Seq, k.last.seq)
	}
	if s.Seq == k.noted.Seq && d.String() != k.noted.Digest {
		k.report.problem(s.Seq, "", "seal %d is not the one that was noted", s.Seq)
	}
	k.report.Seals++
	k.last, k.digest = l, d
	if problem != "" {
		k.report.problem(s.Seq, "", "seal %d: %s", s.Seq, problem)
		return
	}
	k.trusted = l
	for _, e := range l.entries {
		if read, ok := k.unsealed[e.id]; ok {
			delete(k.unsealed, e.id)
			k.compare(e.id, read, expectation{e.digest, s.Seq})
		} else if e.id <= k.cursor && k.cursor != "" {
			k.lacks(e.id, expectation{e.digest, s.Seq})
		} else if before, ok := k.expected[e.id]; !ok || before.digest == e.digest {
			k.expected[e.id] = expectation{e.digest, s.Seq}
		} else {
			k.report.problem(s.Seq, e.id, "event %s is otherwise in seal %d than in seal %d", e.id, s.Seq, before.seal)
		}
	}
}

// events reads the events up to an id.
func (k *check) events(ctx context.Context, upto string) error {
	for k.cursor < upto {
		events, err := k.cfg.Store.AuditRange(ctx, k.cursor, upto, eventsAtOnce)
		if err != nil {
			return err
		}
		for _, e := range events {
			read := entryOf(e)
			if want, ok := k.expected[e.ID]; ok {
				delete(k.expected, e.ID)
				k.compare(e.ID, read.digest, want)
			} else if len(k.unsealed) < maxUnsealed {
				k.unsealed[e.ID] = read.digest
			} else {
				k.report.problem(0, e.ID, "event %s is in no seal", e.ID)
			}
		}
		if len(events) == eventsAtOnce {
			k.cursor = events[len(events)-1].ID
			continue
		}
		k.cursor = upto
	}
	for id, want := range k.expected {
		if id <= k.cursor {
			delete(k.expected, id)
			k.lacks(id, want)
		}
	}
	return nil
}

// maxUnsealed bounds what is kept of events that no seal has.
const maxUnsealed = 1_000_000

func (k *check) compare(id string, read digest, want expectation) {
	if read != want.digest {
		k.report.problem(want.seal, id, "event %s has been changed since it was sealed", id)
		return
	}
	k.report.Events++
}

// lacks notes that an event is missing. It may be too old, or be in an earlier seal as well.
func (k *check) lacks(id string, want expectation) {
	k.missing = append(k.missing, missing{id, want})
	if len(k.missing)%maxUnsealed == 0 {
		k.leaveOld(k.trusted)
	}
}

// leaveOld forgets missing events that may be missing, by what a seal says.
func (k *check) leaveOld(l link) {
	bound := idsFrom(l.swept)
	k.missing = slices.DeleteFunc(k.missing, func(m missing) bool { return !l.swept.IsZero() && m.id < bound })
}

// lost reports the events that are missing indeed.
func (k *check) lost(ctx context.Context) error {
	for i, m := range k.missing {
		if k.report.Found < maxProblems { // after that, nobody looks so closely
			// What is a beginning of the id comes before it.
			found, err := k.cfg.Store.AuditRange(ctx, m.id[:max(len(m.id)-1, 0)], m.id, eventsAtOnce)
			if err != nil {
				return err
			}
			if n := len(found); n > 0 && found[n-1].ID == m.id {
				if entryOf(found[n-1]).digest != m.digest {
					k.report.problem(m.seal, m.id, "event %s has been changed since it was sealed", m.id)
				}
				continue
			}
		} else if i%eventsAtOnce == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		k.report.problem(m.seal, m.id, "event %s has been deleted since it was sealed", m.id)
	}
	return nil
}

// finish judges what is left over at the end.
func (k *check) finish(ctx context.Context, now time.Time) error {
	// What was too old has been deleted meanwhile.
	last, _, err := k.cfg.Store.LastAuditSeal(ctx)
	if err != nil {
		return err
	}
	newest := k.trusted
	if l, _, problem := openSeal(k.cfg.Box, last); last.Seq > newest.seq && problem == "" {
		newest = l
	}
	k.leaveOld(newest)
	r := &k.report
	r.Newest, r.SealedAt, r.Swept = Head{k.last.seq, k.digest.String()}, k.last.at, newest.swept
	if k.last.seq == 0 {
		r.Newest.Digest = ""
	}
	if first := max(newest.first, 1); k.present > first {
		r.problem(first, "", "seals %d to %d are missing", first, k.present-1)
	}
	if k.noted.Seq > k.last.seq {
		r.problem(k.noted.Seq, "", "seal %d was noted and is missing: the end of the trail has been cut off", k.noted.Seq)
	}
	if err := k.lost(ctx); err != nil {
		return err
	}
	// The next seal looks back that far.
	bound, future := back(k.trusted.through), idsFrom(now.Add(lookBack))
	if k.trusted.seq == 0 {
		bound = idsFrom(now.Add(-lookBack))
	}
	for id := range k.unsealed {
		switch {
		case id > future:
			r.problem(0, id, "event %s is of a time that is to come: it has been added by hand, or by a replica whose clock is ahead", id)
		case id > bound:
			r.Waiting++
		case k.trusted.seq == 0:
			r.problem(0, id, "event %s is in no seal, because there is none: all have been deleted, or no replica has run since the version that makes them", id)
		default:
			r.problem(0, id, "event %s is in no seal: it has been added by hand, or by a replica whose clock was behind by more than %v", id, lookBack)
		}
	}
	return nil
}
