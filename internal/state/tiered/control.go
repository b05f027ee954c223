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
// the generation and the server, with spaces between.
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
	server     string

	seen  time.Time // when this version was first seen here
	begin time.Time // before the record was asked for: the lease counts from then
	reads bool      // the phase is on, and the server answered as the one it names
	clock time.Time // if reads: SQL's, read after asked
	asked time.Time
}

// view returns what this replica may act on: a view whose lease is valid, or one
// that was asked for after the call.
func (s *Store) view(ctx context.Context) (*view, error) {
	if v := s.current.Load(); v != nil && s.valid(v) {
		return v, nil
	}
	select {
	case s.refreshing <- struct{}{}:
		defer func() { <-s.refreshing }()
	case <-ctx.Done():
		return nil, state.ErrUnavailable.Because(ctx.Err())
	}
	if v := s.current.Load(); v != nil && s.valid(v) {
		return v, nil
	}
	v, err := s.refresh(ctx)
	if err != nil {
		return nil, err
	}
	s.current.Store(v)
	return v, nil
}

// refresh reads the control record, moves the phase on if it is time, and makes
// sure that the server is still the one. The caller holds refreshing.
func (s *Store) refresh(ctx context.Context) (*view, error) {
	for {
		v, err := s.read(ctx)
		if err != nil {
			return nil, err
		}
		if v.phase != off {
			fast, cancel := short(ctx)
			server, err := s.fast.CacheServer(fast, v.generation)
			cancel()
			switch {
			case errors.Is(err, redisstate.ErrNotOpen), err == nil && server != v.server:
				if err := s.move(ctx, v, off); err != nil {
					return nil, err
				}
				s.log.WarnContext(ctx, "redis is another server than before, or has restarted; sessions are read from the database")
				continue
			case err != nil: // writers, who must reach it, will say what follows
				return v, nil
			}
		}
		switch age := s.now().Sub(v.seen); {
		case v.phase == on:
			v.reads, v.asked = true, s.now()
			v.clock, err = s.durable.Clock(ctx)
			return v, err
		case v.phase == write && age >= s.patience():
			err = s.move(ctx, v, on, v.generation, v.server)
			s.log.InfoContext(ctx, "sessions are read through redis")
		case v.phase == off && age >= max(s.rest, s.patience()) && !s.avoided():
			generation := rand.Text()
			fast, cancel := short(ctx)
			server, failed := s.fast.CacheOpen(fast, generation)
			cancel()
			if failed != nil {
				s.avoidFor(ctx)
				return v, nil
			}
			err = s.move(ctx, v, write, generation, server)
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
	if s.first.version != r.Version {
		s.first.version, s.first.at = r.Version, s.now()
	}
	v := &view{version: r.Version, phase: off, begin: begin, seen: s.first.at}
	if f := strings.Fields(string(r.Value)); len(f) == 3 {
		v.phase, v.generation, v.server = f[0], f[1], f[2]
	}
	return v, nil
}

// move replaces the control record that v is of. If somebody else was faster,
// that is as well.
func (s *Store) move(ctx context.Context, v *view, value ...string) error {
	_, err := s.durable.Swap(ctx, controlKey, v.version, []byte(strings.Join(value, " ")), state.MaxTTL)
	if err != nil && !errors.Is(err, state.ErrChanged) {
		return err
	}
	return nil
}

// distrust moves to off, because of an error that kept a writer from telling
// Redis, and returns what is then.
func (s *Store) distrust(ctx context.Context, v *view, because error) (*view, error) {
	if err := s.move(ctx, v, off); err != nil {
		return nil, err
	}
	s.log.WarnContext(ctx, "redis cannot be told of a change; sessions are read from the database", "error", because)
	s.current.CompareAndSwap(v, nil)
	return s.view(ctx)
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
