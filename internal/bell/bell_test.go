package bell

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// An ear is a bell that counts what it hears.
type ear struct {
	*Bell
	heard chan News // big enough for a test
	log   *testenv.Log
}

func listen(t testing.TB, cfg Config) *ear {
	t.Helper()
	e := &ear{heard: make(chan News, 1000), log: &testenv.Log{}}
	cfg.Logger = slog.New(slog.NewTextHandler(e.log, nil))
	cfg.Registerer = prometheus.NewRegistry()
	calls := map[News]func(){}
	for _, n := range []News{Registry, Revocations} {
		calls[n] = func() { e.heard <- n }
	}
	var err error
	if e.Bell, err = New(cfg, calls); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { e.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return e
}

// next waits for a kind of news.
func (e *ear) next(t testing.TB, want News) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case got := <-e.heard:
			if got == want {
				return
			}
		case <-deadline:
			t.Fatalf("no news of the %s\n%s", want, e.log)
		}
	}
}

// ready waits until the bell listens, which it reports as a ring for all news.
func (e *ear) ready(t testing.TB) {
	t.Helper()
	for missing := map[News]bool{Registry: true, Revocations: true}; len(missing) > 0; {
		select {
		case got := <-e.heard:
			delete(missing, got)
		case <-time.After(time.Minute):
			t.Fatalf("the line does not stand\n%s", e.log)
		}
	}
}

func openDB(t testing.TB, url string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

func openRedis(t testing.TB, url string) func(context.Context) (rueidis.Client, error) {
	t.Helper()
	s, err := redisstate.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.Client
}

// A listener hears of what PostgreSQL commits, and of nothing that it rolls back. A command
// needs no bell of its own.
func TestPostgres(t *testing.T) {
	url := testenv.Postgres(t)
	e := listen(t, Config{DB: openDB(t, url)})
	e.ready(t)
	s := sqlstore.New(openDB(t, url))
	if _, err := s.AppendRevocation(t.Context(), store.Revocation{Kind: "jti", Subject: "x", ExpiresAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	e.next(t, Revocations)
	if err := s.CreateKey(t.Context(), store.Key{ID: "k", PublicJWK: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	e.next(t, Registry)
	if log := e.log.String(); log != "" {
		t.Errorf("it logs %s", log)
	}
}

// Behind PgBouncer in transaction mode no ring arrives. The bell logs that once, its owner
// polls, and no connection of the pooler is left listening.
func TestPgBouncer(t *testing.T) {
	for _, mode := range []string{"exec", "cache_statement"} {
		t.Run(mode, func(t *testing.T) {
			direct := testenv.Postgres(t)
			url := testenv.PgBouncer(t, direct).URL + "&default_query_exec_mode="
			e := listen(t, Config{DB: openDB(t, url+mode)})
			deadline := time.Now().Add(time.Minute)
			for !strings.Contains(e.log.String(), "by polling") {
				if time.Now().After(deadline) {
					t.Fatalf("nothing is said about it: %s", e.log)
				}
				time.Sleep(10 * time.Millisecond)
			}
			if n := strings.Count(e.log.String(), "\n"); n != 1 {
				t.Errorf("%d lines: %s", n, e.log)
			}
			// Sixteen transactions at once are sixteen connections, or all there are.
			pool := openDB(t, url+"exec")
			var all sync.WaitGroup
			for range 16 {
				all.Go(func() {
					err := pool.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
						var listening int
						if err := q.QueryRow(ctx, "SELECT COUNT(*) FROM pg_listening_channels(), pg_sleep(0.1)").Scan(&listening); err != nil {
							return err
						}
						if listening != 0 {
							t.Error("a connection listens that somebody else has next")
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		})
	}
}

// When the server returns, the bell listens again, and rings for all news, since rings may
// have been missed.
func TestRestarts(t *testing.T) {
	for name, start := range map[string]func(testing.TB, ...string) *testenv.Server{
		"postgres": testenv.StartPostgres, "redis": testenv.StartRedis,
	} {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			cfg := Config{}
			if name == "postgres" {
				cfg.DB = openDB(t, server.URL)
			} else {
				cfg.Redis = openRedis(t, server.URL)
			}
			e := listen(t, cfg)
			e.ready(t)
			server.Stop()
			deadline := time.Now().Add(time.Minute)
			for !strings.Contains(e.log.String(), "by polling") {
				if time.Now().After(deadline) {
					t.Fatalf("nothing is said about it: %s", e.log)
				}
				time.Sleep(10 * time.Millisecond)
			}
			server.Start(t)
			e.ready(t)
			if !strings.Contains(e.log.String(), "at once again") {
				t.Errorf("nothing is said of its return: %s", e.log)
			}
		})
	}
}

func TestRedis(t *testing.T) {
	url := testenv.Redis(t)
	one, two := listen(t, Config{Redis: openRedis(t, url)}), listen(t, Config{Redis: openRedis(t, url)})
	one.ready(t)
	two.ready(t)
	one.Ring(Revocations)
	two.next(t, Revocations)
	two.Ring(Registry)
	one.next(t, Registry)
}

// A ring is heard in its own installation alone.
func TestInstallationsApart(t *testing.T) {
	url := testenv.Redis(t)
	in := func(installation string) *ear {
		t.Helper()
		e := listen(t, Config{Redis: openRedis(t, url), Installation: installation})
		e.ready(t)
		return e
	}
	here, nearby, there, before := in("here"), in("here"), in("there"), in("")
	here.Ring(Revocations)
	nearby.next(t, Revocations) // so Redis has sent it to all that it is for
	for _, e := range []*ear{there, before} {
		e.Ring(Registry)
		e.next(t, Registry) // so this one has heard what Redis sent before
		var m dto.Metric
		if err := e.rings.WithLabelValues("redis", string(Revocations)).Write(&m); err != nil || m.Counter.GetValue() != 0 {
			t.Errorf("%q has heard %v rings of another installation, %v", e.cfg.Installation, m.Counter.GetValue(), err)
		}
	}
}

// A flood of rings does not keep a replica busy, and unknown news is ignored.
func TestFlood(t *testing.T) {
	url := testenv.Redis(t)
	e := listen(t, Config{Redis: openRedis(t, url)})
	e.ready(t)
	client, err := openRedis(t, url)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int64
	done := make(chan struct{})
	go func() {
		for {
			select {
			case n := <-e.heard:
				if n != Registry {
					t.Errorf("news of %q", n)
				}
				calls.Add(1)
			case <-done:
				return
			}
		}
	}()
	began := time.Now()
	for range 20_000 {
		for _, what := range []string{"registry", "registry; DROP", ""} {
			if err := client.Do(t.Context(), client.B().Publish().Channel(RedisChannel).Message(what).Build()).Error(); err != nil {
				t.Fatal(err)
			}
		}
		if time.Since(began) > 300*time.Millisecond {
			break
		}
	}
	for deadline := began.Add(time.Minute); calls.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	took := time.Since(began)
	close(done)
	if most := int64(took/gap) + 2; calls.Load() > most || calls.Load() == 0 {
		t.Errorf("%d calls in %v, at most %d are wanted", calls.Load(), took, most)
	}
}
