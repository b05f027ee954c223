package session

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// What becomes of a write.
const (
	isDone     = iota
	isSlow     // done, and answered much later
	isLost     // an error, and not done
	isKept     // an error, and done
	isDelayed  // an error, and done some time later, unless the record has changed by then
	fates      = iota
	testGrace  = 10 * time.Second
	tooLong    = 15 * time.Second // after which a write is given up
	modelSteps = 25
)

// A line is how one replica reaches the state.
type line struct {
	state.Store
	all  *replicas
	away bool
	fate int // of the next write
}

func (l *line) Ping(context.Context) error {
	if l.away {
		return errFault
	}
	return nil
}

func (l *line) Get(ctx context.Context, k state.Key) (state.Record, error) {
	if l.away {
		return state.Record{}, errFault
	}
	return l.Store.Get(ctx, k)
}

func (l *line) Swap(ctx context.Context, k state.Key, version int64, value []byte, ttl time.Duration) (int64, error) {
	if l.away {
		return 0, errFault
	}
	fate := l.fate
	l.fate = isDone
	swap := func() (int64, error) { return l.Store.Swap(ctx, k, version, value, ttl) }
	switch fate {
	case isSlow:
		next, err := swap()
		l.all.pass(tooLong - time.Second)
		return next, err
	case isLost:
	case isKept:
		if _, err := swap(); err != nil {
			return 0, err
		}
		l.all.pass(tooLong)
	case isDelayed:
		l.all.pass(tooLong)
		l.all.delayed = append(l.all.delayed, func() { _, _ = swap() })
	default:
		return swap()
	}
	l.all.failed = true
	return 0, errFault
}

// replicas are three over one state.
type replicas struct {
	*rapid.T
	clock   *clock
	lines   [3]*line
	stores  [3]*Store
	user    string
	delayed []func()
	failed  bool // a write, since somebody has reset this
}

func newReplicas(t *rapid.T, open func(now func() time.Time) state.Store) *replicas {
	r := &replicas{T: t, clock: &clock{now: time.Now()}, user: uuid.NewString()}
	shared := open(r.clock.Now)
	for i := range r.stores {
		r.lines[i] = &line{Store: shared, all: r}
		r.stores[i] = New(Config{
			State: r.lines[i], TTL: 240 * time.Hour, RefreshDuration: 240 * time.Hour, RenewGrace: testGrace,
			Now: r.clock.Now, Rand: rand.Reader, Logger: slog.New(slog.DiscardHandler),
		})
	}
	return r
}

func (r *replicas) any() int { return rapid.IntRange(0, 2).Draw(r.T, "replica") }

func (r *replicas) begin() string {
	_, token, _, err := r.stores[0].Start(context.Background(), r.user, 0, "", "", nil)
	if err != nil {
		r.Fatal(err)
	}
	return token
}

// pass has time pass, in which the replicas look after the state: every second while it is
// away from one of them.
func (r *replicas) pass(d time.Duration) {
	for d > 0 {
		step := d
		for _, l := range r.lines {
			if l.away {
				step = min(d, time.Second)
			}
		}
		d -= step
		r.clock.advance(step)
		for _, one := range r.stores {
			_ = one.reach(context.Background())
		}
	}
}

// settle has the writes done that are delayed.
func (r *replicas) settle() {
	for _, write := range r.delayed {
		write()
	}
	r.delayed = nil
}

// seconds draws a time.
func (r *replicas) seconds(least, most int) time.Duration {
	return time.Duration(rapid.IntRange(least, most).Draw(r.T, "seconds")) * time.Second
}

// onStates runs a model over a state in memory, and over a database.
func onStates(t *testing.T, model func(*replicas)) {
	t.Run("memory", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) {
			model(newReplicas(rt, func(now func() time.Time) state.Store { return memstate.New(now) }))
		})
	})
	t.Run("postgres", func(t *testing.T) {
		db, err := sqldb.Open(t.Context(), sqldb.Config{URL: testenv.Postgres(t)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		if _, err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		rapid.Check(t, func(rt *rapid.T) {
			if rapid.IntRange(0, 4).Draw(rt, "one in five, because a database takes its time") == 0 {
				model(newReplicas(rt, func(now func() time.Time) state.Store { return sqlstate.New(db, now) }))
			}
		})
	})
}

// One honest client is never taken for a thief, whatever the replicas and the state do to
// its answers. It has several tabs, which renew at the same time and ask again as they are
// asked to, or later, because an answer was lost. Of what they were given, one token stays.
// Inside the grace period all are given the same.
func TestAnHonestClientIsNeverAThief(t *testing.T) {
	onStates(t, func(r *replicas) {
		token := r.begin()
		for range 4 {
			r.pass(r.seconds(1, 600))
			token = r.round(token)
		}
	})
}

// round has some tabs renew one token, and returns a successor that one of them was given.
func (r *replicas) round(token string) string {
	tabs := rapid.IntRange(1, 3).Draw(r.T, "tabs")
	var given []string
	var since time.Time // from when on the last successor is given for the whole grace period
	apart := false      // a replica was cut off alone, or a write was answered with an error
	away, cutOff := time.Duration(0), -1
	r.failed = false
	for steps := 0; tabs > 0; steps++ {
		if steps > modelSteps { // all goes well from now on
			cutOff = -1
			for _, l := range r.lines {
				l.away, l.fate = false, isDone
			}
		} else {
			switch rapid.IntRange(0, 7).Draw(r.T, "event") {
			case 0: // a failover, which all replicas notice
				for _, l := range r.lines {
					l.away = true
				}
				asked := r.any()
				lasts := r.seconds(2, 40)
				r.pass(lasts / 2)
				if _, _, err := r.stores[asked].Renew(context.Background(), token, always); !errors.Is(err, errFault) {
					r.Fatalf("in an outage: %v", err)
				}
				r.pass(lasts - lasts/2)
				for i, l := range r.lines {
					l.away = i == cutOff
				}
				r.pass(time.Second)
				away += lasts
			case 1: // a replica is cut off, or is so no longer
				if cutOff >= 0 {
					r.lines[cutOff].away = false
					cutOff = -1
				} else {
					cutOff, apart = r.any(), true
					r.lines[cutOff].away = true
				}
			case 2:
				r.lines[r.any()].fate = rapid.IntRange(0, fates-1).Draw(r.T, "fate")
			case 3:
				r.settle()
			case 4:
				r.pass(r.seconds(1, 30))
			}
		}
		asked := r.clock.Now()
		_, next, err := r.stores[r.any()].Renew(context.Background(), token, always)
		apart = apart || r.failed
		switch {
		case errors.Is(err, errFault):
			r.pass(time.Second) // Retry-After
			continue
		case err != nil:
			r.Fatalf("an honest client is answered %v", err)
		}
		if len(given) > 0 && next != given[len(given)-1] {
			if !apart && asked.Sub(since)-away < testGrace-2*time.Second {
				r.Fatalf("another successor after %v, of which the state was away %v", asked.Sub(since), away)
			}
			given = append(given, next)
			since, away = r.clock.Now(), 0
		}
		if len(given) == 0 {
			given, since, away = []string{next}, r.clock.Now(), 0
		}
		if rapid.Bool().Draw(r.T, "the answer arrives") || steps > modelSteps {
			tabs--
		}
	}
	for _, l := range r.lines {
		l.away, l.fate = false, isDone
	}
	r.settle()
	return rapid.SampledFrom(given).Draw(r.T, "the token that stays")
}

// Two parties hold tokens of one family and renew further apart than the grace period. When
// one of them has used a successor of its own, the next one that the other party presents is
// theft. So they never both go on.
func TestTwoPartiesNeverBothGoOn(t *testing.T) {
	onStates(t, func(r *replicas) {
		type party struct {
			token string
			own   bool // the other party does not hold the token
			used  bool // it has used one of its own
		}
		token := r.begin()
		var before string
		for range rapid.IntRange(0, 2).Draw(r.T, "renewals before they part") {
			_, next, err := r.stores[r.any()].Renew(context.Background(), token, always)
			if err != nil {
				r.Fatal(err)
			}
			before, token = token, next
			r.pass(testGrace + time.Second)
		}
		parties := [2]*party{{token: token}, {token: token}}
		if before != "" && rapid.Bool().Draw(r.T, "the thief has the token before") {
			parties[0].own, parties[1].token = true, before
		}
		ended := false
		for range modelSteps {
			r.pass(testGrace + r.seconds(1, 60))
			at := rapid.IntRange(0, 1).Draw(r.T, "party")
			one, other := parties[at], parties[1-at]
			replica := r.any()
			r.lines[replica].fate = rapid.IntRange(0, fates-1).Draw(r.T, "fate")
			sess, next, err := r.stores[replica].Renew(context.Background(), one.token, always)
			r.lines[replica].fate = isDone
			if errors.Is(err, errFault) { // it asks again as it is told
				if rapid.Bool().Draw(r.T, "the write is done before") {
					r.settle()
				}
				r.pass(time.Second)
				replica = r.any()
				sess, next, err = r.stores[replica].Renew(context.Background(), one.token, always)
			}
			r.settle()
			switch {
			case ended:
				if !errors.Is(err, ErrEnded) && !errors.Is(err, ErrInvalid) {
					r.Fatalf("the session has ended, and a renewal is answered %v", err)
				}
			case errors.Is(err, ErrReplayed):
				if !other.used && !one.used {
					r.Fatal("theft, although nobody has used a successor")
				}
				if err := r.stores[replica].Stop(context.Background(), sess.UserID, sess.ID); err != nil {
					r.Fatal(err)
				}
				ended = true
			case err != nil:
				r.Fatal(err)
			case other.used:
				r.Fatal("both parties go on")
			default:
				one.used = one.used || one.own
				if rapid.Bool().Draw(r.T, "the answer arrives") {
					one.token, one.own = next, true
				}
			}
		}
	})
}
