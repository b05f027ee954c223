package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// unreachable answers no question.
type unreachable struct{}

func (unreachable) RoundTrip(*http.Request) (*http.Response, error) { return nil, errAway }

// A timedRegistry is one whose database has the time of the test: the database's own clock goes
// on, and what it has written is made older before each call.
type timedRegistry struct {
	*testRegistry
	mu      sync.Mutex    // held across each call
	began   time.Time     // of the test
	at      time.Time     // the same by the database's clock
	shifted time.Duration // by how much what is written was made older
}

// openTimed also sets the replicas' clock to that of the database.
func openTimed(t *testing.T, c *clock) *timedRegistry {
	t.Helper()
	r := &timedRegistry{testRegistry: openRegistry(t), began: time.Now()}
	all, err := r.Store.Registered(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.at = all.Now
	c.Move(r.at.Sub(r.began))
	return r
}

// call runs f when everything is as old as it has to be.
func (r *timedRegistry) call(ctx context.Context, f func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, err := r.Store.Registered(ctx)
	if err != nil {
		return err
	}
	by := time.Since(r.began) - all.Now.Sub(r.at) - r.shifted
	err = r.db.InTx(ctx, func(ctx context.Context, q sqldb.Q) error {
		if _, err := q.Exec(ctx, "UPDATE replicas SET beat_at = beat_at - ?", by.Microseconds()); err != nil {
			return err
		}
		var stop string
		if err := q.QueryRow(ctx, "SELECT COALESCE(MAX(value), '') FROM settings WHERE name = 'cluster.stopped'").Scan(&stop); err != nil || stop == "" {
			return err
		}
		fields := strings.Fields(stop)
		end, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return err
		}
		fields[1] = strconv.FormatInt(end-by.Microseconds(), 10)
		_, err = q.Exec(ctx, "UPDATE settings SET value = ? WHERE name = 'cluster.stopped'", strings.Join(fields, " "))
		return err
	})
	if err != nil {
		return err
	}
	r.shifted += by
	return f()
}

func (r *timedRegistry) EnterRegistry(ctx context.Context, own store.Replica, within time.Duration) (there store.Replica, err error) {
	err = r.call(ctx, func() (err error) {
		there, err = r.Store.EnterRegistry(ctx, own, within)
		there.BeatAt = there.BeatAt.Add(r.shifted)
		return err
	})
	return there, err
}

func (r *timedRegistry) Registered(ctx context.Context) (all store.Registered, err error) {
	err = r.call(ctx, func() (err error) {
		all, err = r.Store.Registered(ctx)
		all.Now = all.Now.Add(r.shifted)
		for i := range all.Replicas {
			all.Replicas[i].BeatAt = all.Replicas[i].BeatAt.Add(r.shifted)
		}
		if !all.Stop.CachesEnd.IsZero() {
			all.Stop.CachesEnd = all.Stop.CachesEnd.Add(r.shifted)
		}
		return err
	})
	return all, err
}

func (r *timedRegistry) Beat(ctx context.Context, own store.Replica, news bool) error {
	return r.call(ctx, func() error { return r.Store.Beat(ctx, own, news) })
}

func (r *timedRegistry) LeaveRegistry(ctx context.Context, instance, incarnation string) error {
	return r.call(ctx, func() error { return r.Store.LeaveRegistry(ctx, instance, incarnation) })
}

func (r *timedRegistry) ForgetReplica(ctx context.Context, instance, incarnation string) error {
	return r.call(ctx, func() error { return r.Store.ForgetReplica(ctx, instance, incarnation) })
}

// A member is a replica with its keys in memory. It runs until it leaves or is killed.
type member struct {
	*Cluster
	ring *keyring.Ring
	kill func()
}

// stopConfig is that of a replica whose peers cannot be reached.
func stopConfig(r *timedRegistry, c *clock, instance string) Config {
	cfg := config(r, c, instance)
	cfg.URL = "http://" + instance
	cfg.Client = func(string) *http.Client { return &http.Client{Transport: unreachable{}} }
	return cfg
}

// begin starts a replica.
func begin(t *testing.T, cfg Config) *member {
	t.Helper()
	c, err := Join(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, c)
}

// open goes on with the start of a replica that has joined.
func open(t *testing.T, c *Cluster) *member {
	t.Helper()
	c.AskAll(t.Context())
	var keys keyring.Store
	switch r := c.cfg.Registry.(type) {
	case *timedRegistry:
		keys = r.Store
	case *cutOff:
		keys = r.Store
	}
	ring, err := keyring.Open(t.Context(), keyring.Config{
		Source: keysource.Memory{Rand: rand.Reader}, Algorithms: []string{accesstoken.ES256}, InstanceID: c.cfg.Instance,
		KeyDuration: time.Hour, PublishAhead: time.Minute, TokenDuration: time.Minute, Leeway: timing.Leeway, MaxAge: c.cfg.MaxAge,
		Store: keys, Peers: c, Now: c.cfg.Now, Logger: c.cfg.Logger, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Serve(ring)
	ctx, cancel := context.WithCancel(t.Context())
	var loops sync.WaitGroup
	loops.Go(func() { c.Run(ctx) })
	loops.Go(func() { ring.Run(ctx) })
	m := &member{Cluster: c, ring: ring, kill: func() { cancel(); loops.Wait() }}
	t.Cleanup(m.kill)
	return m
}

func (m *member) leave(t *testing.T) {
	t.Helper()
	m.kill()
	if err := m.Leave(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// firstSigner waits until one of the replicas signs, and returns how long it took.
func firstSigner(t *testing.T, members ...*member) time.Duration {
	t.Helper()
	began := time.Now()
	for ; time.Since(began) < 2*time.Minute; synctest.Wait() {
		for _, m := range members {
			if _, err := m.ring.Signer(); err == nil {
				return time.Since(began)
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
	t.Fatal("none signs")
	return 0
}

// oneSigns checks that of the replicas that have started together one signs, and the others
// when no cache can be without their keys.
func oneSigns(t *testing.T, members ...*member) {
	t.Helper()
	signing := 0
	for _, m := range members {
		if _, err := m.ring.Signer(); err == nil {
			signing++
		}
	}
	if signing != 1 {
		t.Errorf("%d sign at first", signing)
	}
}

// After a total stop, the first key waits for caches as long as they last, and no longer.
func TestStopped(t *testing.T) {
	const maxAge = 16 * time.Second
	const waits = maxAge + 2*time.Second // as if others were live
	ids := []string{"auth-0", "auth-1", "auth-2"}
	others := []string{"auth-3", "auth-4", "auth-5"}
	leaveAll := func(t *testing.T, _ *timedRegistry, all []*member) {
		for _, m := range all {
			m.leave(t)
		}
	}
	killAll := func(_ *testing.T, _ *timedRegistry, all []*member) {
		for _, m := range all {
			m.kill()
		}
	}
	for _, tt := range []struct {
		name     string
		stop     func(t *testing.T, r *timedRegistry, all []*member)
		off      time.Duration // from then to the start
		ids      []string      // of those that start
		from, to time.Duration // when the first one signs, after the start
	}{
		{"all leave, for longer than caches last", leaveAll, maxAge + time.Second, ids, 0, time.Second},
		{"all leave, and others start", leaveAll, maxAge + time.Second, others, 0, time.Second},
		{"all leave for half of the time", leaveAll, maxAge / 2, ids, maxAge / 2, maxAge/2 + time.Second},
		{"all leave for a second", leaveAll, time.Second, ids, maxAge, waits + time.Second},
		{"all are killed", killAll, maxAge + timing.LiveFor, ids, 0, time.Second},
		{"all are killed, and others start", killAll, maxAge + timing.LiveFor, others, 0, time.Second},
		{"all are killed, and others start when the rows are forgotten", killAll, 2 * timing.Forget, others, 0, time.Second},
		{"all are killed for less than that", killAll, maxAge, ids, timing.LiveFor - timing.Beat, timing.LiveFor + time.Second},
		{"one is killed, and then the others leave", func(t *testing.T, r *timedRegistry, all []*member) {
			all[1].kill()
			time.Sleep(3 * time.Second)
			all[0].leave(t)
			all[2].leave(t)
		}, maxAge + timing.LiveFor, ids, 0, time.Second},
		{"one is killed long before the others leave", func(t *testing.T, r *timedRegistry, all []*member) {
			all[1].kill()
			time.Sleep(maxAge)
			all[0].leave(t)
			all[2].leave(t)
		}, maxAge / 2, ids, maxAge / 2, maxAge/2 + time.Second},
		{"the one that starts first was killed last", func(t *testing.T, r *timedRegistry, all []*member) {
			all[1].kill()
			all[2].kill()
			time.Sleep(maxAge)
			all[0].kill()
		}, maxAge, ids, timing.LiveFor - timing.Beat, timing.LiveFor + time.Second},
		{"the one that starts last was killed last", func(t *testing.T, r *timedRegistry, all []*member) {
			all[0].kill()
			all[1].kill()
			time.Sleep(maxAge)
			all[2].kill()
		}, maxAge, ids, timing.LiveFor - timing.Beat, timing.LiveFor + time.Second},
		{"one goes on", func(t *testing.T, r *timedRegistry, all []*member) {
			all[0].kill()
			all[1].leave(t)
		}, maxAge + timing.LiveFor, ids[:2], maxAge, waits + time.Second},
		{"the last one, of an older version, leaves after the others", func(t *testing.T, r *timedRegistry, all []*member) {
			all[1].leave(t)
			all[2].kill()
			time.Sleep(maxAge)
			all[0].kill()
			leaveAsBefore(t, r, "auth-0")
		}, maxAge / 2, ids, maxAge, waits + time.Second},
		{"an older version has come and gone since", func(t *testing.T, r *timedRegistry, all []*member) {
			leaveAll(t, r, all)
			time.Sleep(maxAge)
			c := &clock{}
			c.Move(r.at.Sub(r.began))
			old := begin(t, stopConfig(r, c, "old"))
			old.kill()
			leaveAsBefore(t, r, "old")
		}, maxAge / 2, ids, maxAge, waits + time.Second},
		{"the killed ones cannot be asked", func(t *testing.T, r *timedRegistry, all []*member) {
			for _, m := range all {
				m.registry.mu.Lock()
				m.registry.self.URL = ""
				m.registry.mu.Unlock()
			}
			time.Sleep(2 * timing.Beat)
			killAll(t, r, all)
		}, maxAge + timing.LiveFor, others, maxAge, maxAge + timing.LiveFor + timing.CutOff + time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &clock{}
				r := openTimed(t, c)
				start := func(ids []string) (all []*member) {
					for _, id := range ids {
						cfg := stopConfig(r, c, id)
						cfg.MaxAge = maxAge
						joined, err := Join(t.Context(), cfg)
						if err != nil {
							t.Fatal(err)
						}
						all = append(all, &member{Cluster: joined})
					}
					for i := range all { // the last one opens its keys first
						m := all[len(all)-1-i]
						*m = *open(t, m.Cluster)
					}
					return all
				}
				before := start(ids)
				time.Sleep(2 * timing.Beat)
				synctest.Wait()
				tt.stop(t, r, before)
				time.Sleep(tt.off)
				synctest.Wait()
				after := start(tt.ids)
				if took := firstSigner(t, after...); took < tt.from || took > tt.to {
					t.Errorf("the first one signs after %v, want %v to %v", took, tt.from, tt.to)
				}
				if tt.from < maxAge {
					oneSigns(t, after...)
				}
			})
		})
	}
}

// leaveAsBefore deletes a replica's row as versions did that wrote nothing of it.
func leaveAsBefore(t *testing.T, r *timedRegistry, instance string) {
	t.Helper()
	err := r.db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
		_, err := q.Exec(ctx, "DELETE FROM replicas WHERE instance = ?", instance)
		if err == nil {
			_, err = q.Exec(ctx, "UPDATE registry_head SET version = version + 1")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// When the database was away, live replicas look silent for a moment. They are not stopped.
func TestNotStoppedButCutOff(t *testing.T) {
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprint("answers: ", answers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &clock{}
				r := openTimed(t, c)
				away := &cutOff{timedRegistry: r}
				running := stopConfig(r, c, "auth-0")
				running.Registry = away
				cut := begin(t, running)
				time.Sleep(time.Minute)
				away.off.Store(true)
				time.Sleep(timing.LiveFor + time.Minute)
				cfg := stopConfig(r, c, "auth-1")
				if answers {
					cfg.Client = func(string) *http.Client { return &http.Client{Transport: served{cut.Cluster}} }
				}
				joined, err := Join(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				if joined.Stopped().IsZero() {
					t.Fatal("nothing looks as if it was stopped: this test shows nothing")
				}
				joined.AskAll(t.Context())
				if got := joined.Stopped().IsZero(); got != answers {
					t.Errorf("after the question: stopped is zero: %v", got)
				}
				away.off.Store(false)
				time.Sleep(timing.Beat)
				synctest.Wait()
				look(t, joined)
				if !joined.Stopped().IsZero() {
					t.Error("the other one beats again")
				}
			})
		})
	}
}

// A cutOff is the registry for a replica that may not reach it.
type cutOff struct {
	*timedRegistry
	off atomic.Bool
}

func (r *cutOff) RegistryVersion(ctx context.Context) (int64, error) {
	if r.off.Load() {
		return 0, errAway
	}
	return r.timedRegistry.RegistryVersion(ctx)
}

// served is the connection to a replica.
type served struct{ *Cluster }

func (s served) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Path != "/api/pkeys" {
		return nil, errors.New("not asked for")
	}
	body, instance, mac, err := s.AnswerKeys(r.Header.Get(HeaderNonce))
	if err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	w.Header().Set(HeaderInstance, instance)
	w.Header().Set(HeaderMAC, mac)
	_, err = w.Write(body)
	return w.Result(), err
}

// The moment is by this replica's clock, and with this replica's MaxAge it comes to the end of
// caches that last for that of others.
func TestStoppedByTheReplicasClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &clock{}
		r := openTimed(t, c)
		cfg := stopConfig(r, c, "auth-0")
		cfg.MaxAge = time.Minute
		begin(t, cfg).leave(t)
		left := c.Now()
		time.Sleep(time.Hour)
		c.Move(4 * time.Second)
		next := join(t, stopConfig(r, c, "auth-0"))
		if got, want := next.Stopped().Add(10*time.Second), left.Add(time.Minute+4*time.Second); got.Sub(want).Abs() > 100*time.Millisecond {
			t.Errorf("caches end at %v, want %v", got, want)
		}
	})
}
