package tiered

import (
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/state/statetest"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// This file asks real servers.

func openRedis(t *testing.T, url string, timeout time.Duration) *redisstate.Copies {
	t.Helper()
	s, err := redisstate.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.Copies(timeout)
}

// The store is held to what any store is, with copies beside it and without. The
// databases themselves are held to it by package sqlstate.
func TestConformance(t *testing.T) {
	redis := testenv.Redis(t)
	conform := func(name, redis, sql string) {
		db, err := sqldb.Open(t.Context(), sqldb.Config{URL: sql, AcquireTimeout: time.Minute, Timeout: 2 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		if _, err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		statetest.Run(t, name, func(t *testing.T) state.Store {
			s := New(Config{
				Truth: sqlstate.New(db, time.Now), Redis: openRedis(t, redis, Timeout), Kind: "test", Secret: secret,
				Log: func() string { return "log" }, Margin: margin, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
			})
			t.Cleanup(func() { s.Close() })
			return s
		})
	}
	conform("tiered, redis in front of postgres", redis, testenv.Postgres(t))
	if os.Getenv("WATCHWORD_SOAK") != "" {
		conform("tiered, redis away", "redis://127.0.0.1:1", testenv.Postgres(t))
		conform("tiered, redis in front of mariadb", redis, testenv.MariaDB(t))
		conform("tiered, redis in front of sqlite", redis, "sqlite:"+filepath.Join(t.TempDir(), "watchword.db"))
	}
}

// TestServer asks the fake and Redis, alone and as a cluster, the same questions.
func TestServer(t *testing.T) {
	const patience = time.Minute // the machine may stand still for a while
	for name, redis := range map[string]func(*testing.T) Redis{
		"fake":    func(*testing.T) Redis { return newServer() },
		"redis":   func(t *testing.T) Redis { return openRedis(t, testenv.Redis(t), patience) },
		"cluster": func(t *testing.T) Redis { return openRedis(t, testenv.RedisCluster(t)[0].URL, patience) },
	} {
		t.Run(name, func(t *testing.T) {
			r := redis(t)
			expires := time.UnixMilli(time.Now().UnixMilli()).UTC()
			holds := func(version int64, value string) {
				t.Helper()
				got, err := r.Get(key)
				if version == 0 {
					if !errors.Is(err, state.ErrNotFound) {
						t.Fatalf("got %v, %v, want nothing", got, err)
					}
					return
				}
				if err != nil || got.Key != key || got.Version != version || string(got.Value) != value || !got.Expires.Equal(expires) {
					t.Fatalf("got %+v, %v, want version %d, %q", got, err, version, value)
				}
			}
			copied := func(from, version int64, value string) redisstate.Copy {
				return redisstate.Copy{Record: state.Record{Key: key, Version: version, Value: []byte(value), Expires: expires}, From: from, Life: time.Hour}
			}
			write := func(list ...redisstate.Copy) {
				t.Helper()
				if err := r.Write(list); err != nil {
					t.Fatal(err)
				}
			}
			holds(0, "")
			write(copied(1, 1, "one\x00\r\n\xff"))
			holds(1, "one\x00\r\n\xff")
			write(copied(1, 1, "one again"))
			holds(1, "one again")
			write(copied(1, 2, "two"))
			holds(2, "two")
			write(copied(1, 2, "two again"))
			holds(2, "two again")
			write(copied(3, 4, "four")) // what made 3 of 2 has not come yet
			holds(0, "")
			write(copied(2, 3, "three"))
			holds(3, "three")
			write(copied(1, 2, "two")) // late: not in the place of a later one
			holds(0, "")
			write(copied(4, 5, "five"), copied(5, 6, "six"), copied(6, 7, "seven"))
			holds(7, "seven")
			write(copied(8, 8, "eight")) // the order is not known
			holds(0, "")
		})
	}
}

// Redis lets a copy go at its end.
func TestRedisKeepsNoCopyLonger(t *testing.T) {
	s, err := redisstate.Open(testenv.Redis(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	client, err := s.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	copies := s.Copies(time.Minute)
	for version := range int64(3) { // also of one that takes another's place
		c := redisstate.Copy{Record: state.Record{Key: key, Version: version, Expires: time.Now()}, From: version - 1, Life: CopyLife}
		if err := copies.Write([]redisstate.Copy{c}); err != nil {
			t.Fatal(err)
		}
		ttl, err := client.Do(t.Context(), client.B().Pttl().Key("copy:session:{owner}:id").Build()).AsInt64()
		if err != nil || ttl <= 0 || ttl > CopyLife.Milliseconds() {
			t.Errorf("the copy has %d ms left, %v", ttl, err)
		}
	}
}

// A Redis that hangs costs one look a moment, and the next ones nothing; when it
// goes on, there are copies again. A caller that goes away is no matter.
func TestRedisHangs(t *testing.T) {
	u, err := url.Parse(testenv.Redis(t))
	if err != nil {
		t.Fatal(err)
	}
	link := testenv.NewLink(t, u.Host)
	u.Host = link.Addr
	w := newWorld()
	s := w.replica(func(c *Config) { c.Redis = openRedis(t, u.String(), Timeout) })
	copied := func() bool {
		t.Helper()
		put(t, s, key, "value", time.Hour)
		w.clock.advance(rest) // the machine may have been too slow
		_, found := s.Copy(key)
		return found
	}
	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !is(); {
			if time.Now().After(deadline) {
				t.Fatal(what)
			}
		}
	}
	until("there is no copy", copied)
	link.Set(testenv.Fault{HoldUp: true, HoldDown: true})
	began := time.Now()
	want(t, s, key, "")
	if took := time.Since(began); took < Timeout/2 { // some operations begin under one deadline
		t.Errorf("it was given up after %v", took)
	}
	if s.next.Load() == 0 {
		t.Error("the next one will wait for it, too")
	}
	link.Set(testenv.Fault{})
	until("there is no copy again", copied)
}
