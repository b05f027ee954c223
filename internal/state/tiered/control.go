package tiered

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
)

// controlKey is the control record's. Its value is the phase and, but for off,
// the generation, which is a secret (copy.go), and the server, with spaces between.
var controlKey = state.Key{Kind: "tier_control", Owner: "cluster", ID: "cache"}

// The phases; see doc.go.
const (
	off   = "off"
	write = "write"
	on    = "on"
)

// A view is what one reading of the control record said.
type view struct {
	version    int64 // of the control record
	phase      string
	generation string
	name       string // of the generation in Redis
	key        []byte // of its copies
	server     string

	seen  time.Time // when this version was first seen here
	begin time.Time // before the record was asked for: the lease counts from then
	reads bool      // the phase is on, and the server answered as the one it names
	clock time.Time // if reads: SQL's, read after asked
	asked time.Time
}

// An asking is one question for the control record, which all wait for who come
// before it is answered.
type asking struct {
	done chan struct{} // closed when the answer is there
	view *view
	err  error
}

// view returns what this replica may act on: a view whose lease is valid, or one
// that was asked for after the call.
func (s *Store) view(ctx context.Context) (*view, error) {
	for called := s.now(); ; {
		if v := s.current.Load(); v != nil && s.valid(v) {
			return v, nil
		}
		if v, err := s.answer(ctx); err != nil || !v.begin.Before(called) {
			return v, err
		}
	}
}

// answer waits for the answer to the question that is under way, or to a new one.
// A slow database answers one question after the other, however many callers wait.
func (s *Store) answer(ctx context.Context) (*view, error) {
	s.mu.Lock()
	a := s.asking
	if a == nil {
		a = &asking{done: make(chan struct{})}
		s.asking = a
		go s.refreshFor(context.WithoutCancel(ctx), a)
	}
	s.mu.Unlock()
	select {
	case <-a.done:
		return a.view, a.err
	case <-ctx.Done():
		return nil, state.ErrUnavailable.Because(ctx.Err())
	}
}

func (s *Store) refreshFor(ctx context.Context, a *asking) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	a.view, a.err = s.refresh(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking = nil; a.err == nil {
		s.current.Store(a.view)
	}
	close(a.done)
}

// refresh reads the control record, moves the phase on if it is time, and makes
// sure that the server is still the one. One at a time does.
func (s *Store) refresh(ctx context.Context) (*view, error) {
	for {
		v, err := s.read(ctx)
		if err != nil {
			return nil, err
		}
		if s.breaker.avoids() {
			return v, nil // writers, who must reach Redis, will say what follows
		}
		if v.phase != off {
			var server string
			err := s.ask(ctx, "server", func(ctx context.Context) (err error) {
				server, err = s.fast.CacheServer(ctx, v.name)
				return err
			})
			switch {
			case errors.Is(err, redisstate.ErrNotOpen), err == nil && server != v.server:
				moved, err := s.move(ctx, v, off)
				if err != nil {
					return nil, err
				}
				if moved {
					s.log.WarnContext(ctx, "redis is another server than before, or has restarted; sessions are read from the database")
				}
				continue
			case err != nil:
				return v, nil
			}
		}
		switch age := s.now().Sub(v.seen); {
		case v.phase == on:
			s.breaker.proved()
			v.reads, v.asked = true, s.now()
			v.clock, err = s.durable.Clock(ctx)
			return v, err
		case v.phase == write && age >= s.late+s.patience():
			var moved bool
			if moved, err = s.move(ctx, v, on, v.generation, v.server); moved {
				s.log.InfoContext(ctx, "sessions are read through redis")
			}
		case v.phase == off && age >= max(s.rest, s.patience()):
			generation, server := rand.Text(), ""
			failed := s.ask(ctx, "open", func(ctx context.Context) (err error) {
				server, err = s.fast.CacheOpen(ctx, copyName(generation))
				return err
			})
			if failed != nil {
				return v, nil
			}
			_, err = s.move(ctx, v, write, generation, server)
		default:
			return v, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// read reads the control record, and makes it if there is none.
func (s *Store) read(ctx context.Context) (*view, error) {
	begin := s.now()
	r, err := s.durable.Get(ctx, controlKey)
	if errors.Is(err, state.ErrNotFound) {
		if _, err := s.durable.Create(ctx, controlKey, []byte(off), state.MaxTTL); err != nil && !errors.Is(err, state.ErrExists) {
			return nil, err
		}
		begin = s.now()
		r, err = s.durable.Get(ctx, controlKey)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	if s.version != r.Version {
		s.version, s.firstSeen = r.Version, s.now()
	}
	v := &view{version: r.Version, phase: off, begin: begin, seen: s.firstSeen}
	if f := strings.Fields(string(r.Value)); len(f) == 3 {
		v.phase, v.generation, v.server = f[0], f[1], f[2]
		v.name, v.key = copyName(v.generation), s.copyKey(v.generation)
	}
	return v, nil
}

// move replaces the control record that v is of, and says whether it has: if
// somebody else was faster, that is as well.
func (s *Store) move(ctx context.Context, v *view, value ...string) (moved bool, err error) {
	_, err = s.durable.Swap(ctx, controlKey, v.version, []byte(strings.Join(value, " ")), state.MaxTTL)
	if errors.Is(err, state.ErrChanged) {
		return false, nil
	}
	return err == nil, err
}

// distrust moves to off, because of an error that kept a writer from telling
// Redis, and returns what is then.
func (s *Store) distrust(ctx context.Context, v *view, because error) (*view, error) {
	moved, err := s.move(ctx, v, off)
	if err != nil {
		return nil, err
	}
	if moved {
		s.log.WarnContext(ctx, "redis cannot be told of a change; sessions are read from the database", "error", because)
	}
	for begin := s.now(); ; {
		if v, err := s.answer(ctx); err != nil || !v.begin.Before(begin) {
			return v, err
		}
	}
}

// valid says whether the lease of v lasts. Neither clock of the machine may say
// otherwise: the monotonic one stands still while the machine sleeps, the other
// one may be set.
func (s *Store) valid(v *view) bool {
	now := s.now()
	return now.Sub(v.begin) < s.lease && now.Round(0).Sub(v.begin.Round(0)) < s.lease
}

// latest is the latest that SQL's clock can be.
func (s *Store) latest(v *view) time.Time { return v.clock.Add(s.now().Sub(v.asked)) }

// unavailable hides that it was the control record that could not be read.
func unavailable(err error) error {
	if errors.Is(err, state.ErrUnavailable) {
		return err
	}
	return state.ErrUnavailable.Because(err)
}
