package revocation

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

var errDown = errors.New("the database is away")

// A memLog keeps the contract of store.Revocations in memory, and fails as the
// test says.
type memLog struct {
	store.Revocations // nil: nothing else is asked of it

	mu    sync.Mutex
	id    string
	head  int64
	lines []store.Revocation

	// down fails everything before it has an effect.
	down bool
	// afterwards fails an append after it has had its effect.
	afterwards bool
	// latency passes before an answer is given, but after it was found.
	latency time.Duration
	// ahead is by how much its clock is.
	ahead time.Duration
	// readable is how many more reads succeed, if it is not negative.
	readable int
}

func newMemLog() *memLog { return &memLog{id: "log-1", readable: -1} }

func (m *memLog) set(f func(*memLog)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

// Setting implements Store: nothing was noted.
func (m *memLog) Setting(context.Context, string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return "", errDown
	}
	return "", store.ErrNotFound
}

func (m *memLog) AppendRevocation(_ context.Context, r store.Revocation) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return 0, errDown
	}
	m.head++
	r.Seq = m.head
	m.lines = append(m.lines, r)
	if m.afterwards {
		return 0, errDown
	}
	return r.Seq, nil
}

func (m *memLog) RevocationsAfter(ctx context.Context, after int64, limit int) ([]store.Revocation, store.LogHead, error) {
	found, head, latency, err := m.find(after, limit)
	if latency > 0 {
		select {
		case <-time.After(latency):
		case <-ctx.Done():
			return nil, store.LogHead{}, ctx.Err()
		}
	}
	return found, head, err
}

func (m *memLog) find(after int64, limit int) ([]store.Revocation, store.LogHead, time.Duration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down || m.readable == 0 {
		return nil, store.LogHead{}, m.latency, errDown
	}
	m.readable--
	var found []store.Revocation
	for _, r := range m.lines {
		if r.Seq > after && len(found) < limit {
			found = append(found, r)
		}
	}
	return found, store.LogHead{ID: m.id, Seq: m.head, Now: time.Now().Add(m.ahead)}, m.latency, nil
}

func (m *memLog) DeleteExpiredRevocations(_ context.Context, t time.Time, limit int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return 0, errDown
	}
	n := 0
	var left []store.Revocation
	for _, r := range m.lines {
		if r.ExpiresAt.Before(t) && r.Seq != m.head && n < limit {
			n++
		} else {
			left = append(left, r)
		}
	}
	m.lines = left
	return n, nil
}

func (m *memLog) RenewLog(_ context.Context, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return errDown
	}
	if m.id == id {
		m.id += " renewed"
	}
	return nil
}

// A journal is a log that may be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}
