package revocation

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A memory is a Shared that keeps tokens in a map, and fails as the test says.
type memory struct {
	mu    sync.Mutex
	known Known
	lines map[string]bool
	err   error
	hangs bool
}

func (m *memory) Tell(ctx context.Context, log string, after, to int64, lines []store.Revocation) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.answer(ctx); err != nil {
		return err
	}
	for _, l := range lines {
		m.lines[l.Subject] = true
	}
	if m.known.Log != log || after > m.known.To {
		m.known = Known{Log: log, From: to, To: to}
	}
	m.known.To = max(m.known.To, to)
	return nil
}

func (m *memory) Ask(ctx context.Context, t *accesstoken.Token) (Known, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.answer(ctx); err != nil {
		return Known{}, err
	}
	k := m.known
	k.Revoked = m.lines[t.ID]
	return k, nil
}

func (m *memory) answer(ctx context.Context) error {
	if m.hangs {
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		return ctx.Err()
	}
	return m.err
}

func (m *memory) flush() { m.known, m.lines = Known{}, map[string]bool{} }

func (m *memory) set(f func(*memory)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

// shares are replicas on one log that ask for every token; one memory, or nil.
func shares(t *testing.T, m *memLog, s *memory, n int) []*replica {
	var list []*replica
	for range n {
		r := prepare(t, m, Config{Poll: time.Second, MaxStaleness: 5 * time.Second, Shared: true})
		if s != nil {
			r.Share(s)
		}
		r.run(t)
		list = append(list, r)
	}
	synctest.Wait()
	return list
}

// What one replica has revoked, the others refuse in the same moment, whatever
// became of the memory they share.
func TestSharedRefusesAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		memory *memory
		before func(m *memory) // before it is revoked
		after  func(m *memory) // after the answer
		waits  time.Duration   // until the answer
		by     string
	}{
		"nothing is shared":  {by: byDatabase},
		"memory":             {memory: &memory{}, by: byShared},
		"flushed afterwards": {memory: &memory{}, after: (*memory).flush, by: byDatabase},
		"flushed before":     {memory: &memory{}, before: (*memory).flush, by: byShared},
		"from an older copy": {memory: &memory{}, after: func(m *memory) { m.known.To, m.lines = m.known.To-1, map[string]bool{} }, by: ""},
		"away":               {memory: &memory{}, before: func(m *memory) { m.err = errDown }, waits: 2 * time.Second, by: byDatabase},
		"away afterwards":    {memory: &memory{}, after: func(m *memory) { m.err = errDown }, by: byDatabase},
		"hangs":              {memory: &memory{}, before: func(m *memory) { m.hangs = true }, waits: 2*time.Second + sharedTimeout, by: byDatabase},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if c.memory != nil {
					c.memory.flush()
				}
				log := newMemLog()
				rs := shares(t, log, c.memory, 2)
				rs[1].expect(t, token("a"), nil)
				time.Sleep(1300 * time.Millisecond) // between two polls
				if c.before != nil {
					c.memory.set(c.before)
				}
				began := time.Now()
				if _, err := rs[0].log.Revoke(t.Context(), line("a")); err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(began); waited > c.waits {
					t.Errorf("it took %v", waited)
				}
				if c.after != nil {
					c.memory.set(c.after)
				}
				if c.by == "" { // what no other replica has seen comes with its poll
					time.Sleep(time.Second)
				}
				count := func() float64 {
					if c.by == "" {
						return 0
					}
					return rs[1].metric(t, "shared_checks_total", c.by)
				}
				before := count()
				rs[1].expect(t, token("a"), ErrRevoked)
				if c.by != "" && c.waits == 0 && count() != before+1 {
					t.Errorf("%s was not asked", c.by)
				}
				rs[1].expect(t, token("b"), nil)
			})
		})
	}
}

// If neither the shared memory nor the database can be asked, every token is refused at once, and those that are known to
// be revoked as such.
func TestSharedWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, m := newMemLog(), &memory{}
		m.flush()
		r := shares(t, log, m, 1)[0]
		if _, err := r.log.Revoke(t.Context(), line("a")); err != nil {
			t.Fatal(err)
		}
		log.set(func(l *memLog) { l.down = true })
		r.expect(t, token("b"), nil) // the memory knows, for a while
		time.Sleep(r.Trust() + time.Second)
		began := time.Now()
		r.expect(t, token("b"), ErrStale)
		r.expect(t, token("a"), ErrRevoked)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it took %v to refuse", waited)
		}
		log.set(func(l *memLog) { l.latency = time.Minute })
		r.expect(t, token("b"), ErrStale)
		if waited := time.Since(began); waited > confirmTimeout {
			t.Errorf("it took %v to give a silent database up", waited)
		}
		log.set(func(l *memLog) { l.latency, l.down = 0, false })
		time.Sleep(time.Minute)
		r.expect(t, token("b"), nil)
	})
}

// A replica that has not read as far as the memory begins asks the database.
func TestSharedMemoryThatBeginsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, m := newMemLog(), &memory{}
		m.flush()
		rs := shares(t, log, m, 2)
		time.Sleep(1300 * time.Millisecond)
		if _, err := rs[0].log.Revoke(t.Context(), line("a")); err != nil {
			t.Fatal(err)
		}
		m.set(func(m *memory) { // another replica has begun it anew
			head := m.known.To
			m.flush()
			m.known = Known{Log: log.id, From: head, To: head}
		})
		rs[1].expect(t, token("a"), ErrRevoked)
		if n := rs[1].metric(t, "shared_checks_total", byDatabase); n != 1 {
			t.Errorf("the database was asked %v times", n)
		}
	})
}

// A client that goes away says nothing about the memory.
func TestSharedAndAClientThatGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		m.flush()
		r := shares(t, newMemLog(), m, 1)[0]
		m.set(func(m *memory) { m.hangs = true })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Check(ctx, token("a")); err != nil && !errors.Is(err, ErrStale) { // nil: the log was read before it was given up
			t.Errorf("got %v", err)
		}
		m.set(func(m *memory) { m.hangs = false })
		before := r.metric(t, "shared_checks_total", byShared)
		r.expect(t, token("a"), nil)
		if n := r.metric(t, "shared_checks_total", byShared); n != before+1 {
			t.Error("the memory was let alone")
		}
	})
}
