package tiered

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
)

// Beside returns the store of a replica without Redis, beside which others may
// have one: while state.backend is changed from replica to replica. It reads from
// SQL. Before it writes it makes sure that nobody reads copies, as any replica does
// that cannot reach Redis; while nobody does, that costs a look at the control
// record once a lease. durable stays the caller's.
func Beside(durable Durable, now func() time.Time, logger *slog.Logger) state.Store {
	s := newStore(Config{Fast: absent{}, Durable: durable, Now: now, Logger: logger})
	s.breaker.next = now().Add(math.MaxInt64) // nobody need ask whether it is back
	s.breaker.open.Store(true)
	return beside{s}
}

type beside struct{ *Store }

// Get implements state.Store.
func (b beside) Get(ctx context.Context, key state.Key) (state.Record, error) {
	return b.durable.Get(ctx, key)
}

// absent is the Fast of who has none. It is only ever told of changes.
type absent struct{ Fast }

var errAbsent = errors.New("this replica has no redis: state.backend is not the same on all replicas")

func (absent) CacheMark(context.Context, string, state.Key, string, time.Duration) error {
	return errAbsent
}

func (absent) CacheClear(context.Context, string, state.Key, string) error { return errAbsent }
