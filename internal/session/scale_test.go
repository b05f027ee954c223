package session

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// BenchmarkSessions measures what a sign-in, a renewal, a look at one session and a
// list of a user's cost beside 10,000, 100,000 and a million other sessions, four of
// each user. Each figure is the median of its operations, one at a time.
func BenchmarkSessions(b *testing.B) {
	for _, backend := range []struct {
		name string
		open func(*testing.B) (s state.Store, fill func(b *testing.B, from, to int, value string), size func() (bytes int64, err error))
	}{{"postgres", inPostgres}, {"redis", inRedis}} {
		b.Run(backend.name, func(b *testing.B) {
			st, fill, size := backend.open(b)
			s := New(Config{State: st, TTL: 24 * time.Hour, RefreshDuration: 24 * time.Hour, RenewGrace: 10 * time.Second, Now: time.Now, Rand: rand.Reader})
			there := 0
			for _, n := range []int{10_000, 100_000, 1_000_000} {
				fill(b, there/perUser, n/perUser, exampleOf(b, s))
				there = n
				b.Run(strconv.Itoa(n), func(b *testing.B) {
					for range b.N {
						measure(b, s, n/perUser)
					}
					bytes, err := size()
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(bytes)/1e6, "MB")
				})
			}
		})
	}
}

// perUser is how many sessions a user has.
const perUser = 4

// userID and sessionID name the sessions that are made ahead.
func userID(n int) string       { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }
func sessionID(n, i int) string { return fmt.Sprintf("00000000-0000-4000-9000-%08d%04d", n, i) }

// exampleOf returns a record of a session as the store keeps it.
func exampleOf(b *testing.B, s *Store) string {
	b.Helper()
	user := userID(99_999_999)
	sess, _, _, err := s.Start(b.Context(), user, 1, "192.0.2.1", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", nil)
	if err != nil {
		b.Fatal(err)
	}
	stored, err := s.State.Get(b.Context(), key(user, sess.ID))
	if err != nil {
		b.Fatal(err)
	}
	var rec record
	if err := json.Unmarshal(stored.Value, &rec); err != nil || len(rec.Current) == 0 {
		b.Fatalf("not a session's record: %s, %v", stored.Value, err)
	}
	return string(stored.Value)
}

// measure reports the medians, and checks that each operation found what it was for.
func measure(b *testing.B, s *Store, users int) {
	b.Helper()
	const rounds = 400
	took := map[string][]time.Duration{}
	timed := func(what string, f func() error) {
		began := time.Now()
		err := f()
		took[what] = append(took[what], time.Since(began))
		if err != nil {
			b.Fatalf("%s: %v", what, err)
		}
	}
	for i := range rounds {
		other := userID(i * (users / rounds))
		guest := userID(50_000_000 + i)
		var sess Session
		var refresh string
		timed("create", func() (err error) {
			sess, refresh, _, err = s.Start(b.Context(), guest, 1, "192.0.2.1", "test", nil)
			return err
		})
		timed("renew", func() error {
			_, _, err := s.Renew(b.Context(), refresh, always)
			return err
		})
		timed("read", func() error {
			_, err := s.Get(b.Context(), other, sessionID(i*(users/rounds), 2))
			return err
		})
		timed("list", func() error {
			list, _, err := s.List(b.Context(), other, "", 100)
			if len(list) != perUser {
				return fmt.Errorf("%d sessions: %w", len(list), err)
			}
			return err
		})
		timed("end", func() error { return s.End(b.Context(), guest, sess.ID) })
	}
	for what, list := range took {
		slices.Sort(list)
		b.ReportMetric(float64(list[len(list)/2].Microseconds()), "µs/"+what)
	}
	b.ReportMetric(0, "ns/op") // it has no meaning here
}

func inPostgres(b *testing.B) (state.Store, func(b *testing.B, from, to int, value string), func() (int64, error)) {
	db, err := sqldb.Open(b.Context(), sqldb.Config{URL: testenv.StartPostgres(b, "shared_buffers=512MB", "max_wal_size=4GB").URL})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	if _, err := db.Migrate(b.Context()); err != nil {
		b.Fatal(err)
	}
	size := func() (bytes int64, err error) {
		err = db.QueryRow(b.Context(), "SELECT pg_total_relation_size('state_records')").Scan(&bytes)
		return bytes, err
	}
	return sqlstate.New(db, time.Now), func(b *testing.B, from, to int, value string) {
		b.Helper()
		for ; from < to; from += 10_000 { // a statement has little time
			_, err := db.Exec(b.Context(), `INSERT INTO state_records (kind, owner, id, value, version, expires_at)
				SELECT ?, '00000000-0000-4000-8000-' || lpad(u::text, 12, '0'), '00000000-0000-4000-9000-' || lpad(u::text, 8, '0') || lpad(i::text, 4, '0'),
				convert_to(?, 'UTF8'), 1, ?::bigint + u FROM generate_series(?::int, ?::int) u, generate_series(0, ?::int) i`,
				Kind, value, time.Now().Add(24*time.Hour).UnixMicro(), from, min(from+10_000, to)-1, perUser-1)
			if err != nil {
				b.Fatal(err)
			}
		}
		if _, err := db.Exec(b.Context(), "ANALYZE state_records"); err != nil {
			b.Fatal(err)
		}
	}, size
}

// fillScript makes the sessions of some users as the store would. ARGV: the users
// from and up to, the sessions of each, the value, the end in milliseconds.
var fillScript = rueidis.NewLuaScript(`
for u = tonumber(ARGV[1]), tonumber(ARGV[2]) do
	local owner = string.format('{00000000-0000-4000-8000-%012d}', u)
	for i = 0, tonumber(ARGV[3]) - 1 do
		local id = string.format('00000000-0000-4000-9000-%08d%04d', u, i)
		redis.call('SET', 'session:' .. owner .. ':' .. id, '0000000000000001000' .. ARGV[5] .. ARGV[4], 'PXAT', ARGV[5])
		redis.call('ZADD', 'session_index:' .. owner, ARGV[5], id)
	end
	redis.call('PEXPIREAT', 'session_index:' .. owner, ARGV[5])
end
return 1
`)

func inRedis(b *testing.B) (state.Store, func(b *testing.B, from, to int, value string), func() (int64, error)) {
	s, err := redisstate.Open(testenv.Redis(b), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	c, err := s.Client(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	size := func() (int64, error) {
		info, err := c.Do(b.Context(), c.B().Info().Section("memory").Build()).ToString()
		if err != nil {
			return 0, err
		}
		_, used, _ := strings.Cut(info, "used_memory:")
		used, _, _ = strings.Cut(used, "\r\n")
		return strconv.ParseInt(used, 10, 64)
	}
	return s, func(b *testing.B, from, to int, value string) {
		b.Helper()
		end := strconv.FormatInt(time.Now().Add(24*time.Hour).UnixMilli(), 10)
		for ; from < to; from += 500 {
			args := []string{strconv.Itoa(from), strconv.Itoa(min(from+500, to) - 1), strconv.Itoa(perUser), value, end}
			if err := fillScript.Exec(b.Context(), c, []string{"session:{fill}"}, args).Error(); err != nil {
				b.Fatal(err)
			}
		}
	}, size
}
