package tiered

import (
	"time"

	"github.com/watchword-auth/watchword/internal/state"
)

// Hasten makes the leases short, so that tests need not wait.
func (s *Store) Hasten(lease, rest time.Duration) {
	s.lease, s.rest, s.breaker.rest, s.late = lease, rest, rest, 0
}

// HastenBeside is Hasten for what Beside returned.
func HastenBeside(s state.Store, lease, rest time.Duration) { s.(beside).Hasten(lease, rest) }

// Late sets by when a write is done, or never will be.
func (s *Store) Late(late time.Duration) { s.late = late }

// Reads says whether this replica reads copies now.
func (s *Store) Reads() bool {
	v := s.current.Load()
	return v != nil && v.reads && s.valid(v) && !s.breaker.avoids()
}

// Avoids says whether this replica does without Redis, because that failed.
func (s *Store) Avoids() bool { return s.breaker.avoids() }
