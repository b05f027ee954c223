package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// With all connections held up, who waits longer than acquire_timeout is told to
// come back; the metrics say why; and those who hold them end well.
func TestPoolExhausted(t *testing.T) {
	const connections = 3 // and one more, which is kept for what the node looks at
	for name, url := range map[string]string{"postgres": testenv.Postgres(t), "mariadb": testenv.MariaDB(t)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *config.Config) {
				c.Database.URL, c.Storage.Key = url, strings.Repeat("00", 32)
				c.Database.MaxConnections, c.Database.AcquireTimeout = connections+1, time.Second
			})
			grant := w.login("admin")
			login := func() answer {
				return w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password})
			}

			answers := make(chan answer, connections)
			held := errors.New("held")
			watch := other(t, url)
			err := other(t, url).InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
				// Whoever signs in writes his session, and waits for this.
				lock := "LOCK TABLE state_records IN ACCESS EXCLUSIVE MODE"
				if q.Dialect() == sqldb.MySQL {
					lock = "DELETE FROM state_records" // rolled back in the end
				}
				if _, err := q.Exec(ctx, lock); err != nil {
					return err
				}
				for range connections {
					go func() { // has a connection in the end, however busy the machine is
						a := login()
						for a.status == 503 && t.Context().Err() == nil {
							a = login()
						}
						answers <- a
					}()
				}
				w.await("they wait for the lock", func() bool { return waiting(t, watch) == connections })
				for range connections {
					a := login()
					if a.status != 503 || a.code() == "" {
						t.Errorf("who got no connection was answered %d %s", a.status, a.body)
					}
					if seconds, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || seconds < 1 {
						t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
					}
				}
				w.verify(grant.AccessToken) // needs no connection
				for name, least := range map[string]float64{
					"connections_in_use": connections, "connection_waits_total": connections,
					"connection_refusals_total": connections, "connection_wait_seconds_total": connections * 0.75,
				} {
					w.await(fmt.Sprint(name, " is at least ", least), func() bool { return w.metric("watchword_database_"+name) >= least })
				}
				return held // and the lock goes
			})
			if !errors.Is(err, held) {
				t.Fatal(err)
			}
			for range connections {
				if a := <-answers; a.status != 200 {
					t.Errorf("who had a connection was answered %d %s", a.status, a.body)
				}
			}
			w.await("a login", func() bool { return login().status == 200 })
		})
	}
}

// While all connections work at statements that take long, for longer than a view may
// be stale, tokens are verified, what another replica takes back is seen, and the node
// is not taken for silent.
func TestVerifyingWhileThePoolIsExhausted(t *testing.T) {
	const connections = 3
	for name, start := range map[string]func(testing.TB) (url, long string){
		"postgres": func(t testing.TB) (string, string) { return testenv.Postgres(t), "SELECT 1 FROM pg_sleep(3)" },
		"mariadb":  func(t testing.TB) (string, string) { return testenv.MariaDB(t), "SELECT 1 + SLEEP(3)" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, long := start(t)
			patient := func(c *config.Config) {
				c.Database.MaxConnections, c.Database.AcquireTimeout = connections, time.Minute
				c.Revocation.MaxStaleness = 10 * time.Second
			}
			w, elsewhere := join(t, url, patient), join(t, url, patient)
			kept, ended := w.login("admin"), w.login("admin")

			ctx, cancel := context.WithCancel(t.Context())
			var busy sync.WaitGroup
			defer busy.Wait()
			defer cancel()
			for range 8 * connections { // who comes last waits for longer than a view may be stale
				busy.Go(func() {
					for ctx.Err() == nil {
						var one int
						if err := w.node.parts.DB.QueryRow(ctx, long).Scan(&one); err != nil && ctx.Err() == nil {
							t.Errorf("a statement that takes long: %v", err)
						}
					}
				})
			}
			exhausted := func() bool { return w.metric("watchword_database_connections_waiting") >= 6*connections }
			w.await("the pool is exhausted", exhausted)
			registry := elsewhere.node.parts.Store.(store.Registry)
			before, err := registry.Registered(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for begin := time.Now(); time.Since(begin) < w.cfg.Revocation.MaxStaleness+2*time.Second; <-tick.C {
				w.verify(kept.AccessToken)
			}
			elsewhere.want(elsewhere.do("POST", "/api/logout", ended.AccessToken, nil), 204, "")
			w.refuses(ended.AccessToken, "token_revoked", time.Now(), w.cfg.Revocation.MaxStaleness)
			w.verify(kept.AccessToken)
			after, err := registry.Registered(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range after.Replicas {
				if !r.BeatAt.After(before.Now) {
					t.Errorf("%s has not been heard of since the pool was exhausted", r.Instance)
				}
			}
			if !exhausted() {
				t.Error("the pool is not exhausted any more")
			}
		})
	}
}

// waiting counts who waits for a lock in a database, while nobody gets one for a session.
func waiting(t *testing.T, db *sqldb.DB) (n int) {
	t.Helper()
	query := "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
	if db.Dialect() == sqldb.MySQL {
		// Not of innodb_trx, which is not read anew for who asks often.
		query = "SELECT COUNT(*) FROM information_schema.processlist WHERE db = DATABASE() AND info LIKE 'INSERT INTO state_records%'"
	}
	if err := db.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// The database, or the pooler before it, goes away under requests and comes back:
// those under way are answered 503, and so are tokens when revocations are no longer
// seen; then all goes on without a restart, and every logout that was answered is for
// good.
func TestDatabaseGoesAndComesBack(t *testing.T) {
	for name, start := range map[string]func(testing.TB) (url string, server *testenv.Server){
		"postgres": func(t testing.TB) (string, *testenv.Server) { s := testenv.StartPostgres(t); return s.URL, s },
		"mariadb":  func(t testing.TB) (string, *testenv.Server) { s := testenv.StartMariaDB(t); return s.URL, s },
		"pgbouncer": func(t testing.TB) (string, *testenv.Server) {
			s := testenv.PgBouncer(t, testenv.Postgres(t))
			return s.URL, s
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, server := start(t)
			w := newWorld(t, func(c *config.Config) {
				c.Database.URL, c.Storage.Key = url, strings.Repeat("00", 32)
				c.Revocation.MaxStaleness, c.Health.Timeout = 3*time.Second, 2*time.Second
			})
			grant := w.login("admin")
			renew := func() answer {
				return w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken})
			}
			people := w.comeAndGo(4)
			defer people.leave()
			people.await(t, 20)

			server.Stop()
			for range 2 {
				if a := renew(); a.status != 503 || a.header.Get("Retry-After") == "" {
					t.Errorf("a renewal is answered %d %s", a.status, a.body)
				}
			}
			w.await("tokens are refused", func() bool {
				return w.do("GET", "/api/verify", grant.AccessToken, nil).code() == "revocation_stale"
			})
			w.wantBackend("database", "failed")
			w.want(w.do("GET", "/livez", "", nil), 200, "")

			server.Start(t)
			w.await("tokens are accepted again", func() bool {
				return w.do("GET", "/api/verify", grant.AccessToken, nil).status == 200
			})
			people.await(t, 20)
			for _, ended := range people.leave() {
				w.want(w.do("GET", "/api/verify", ended.AccessToken, nil), 401, "token_revoked")
			}
			w.await("a renewal", func() bool { // the token was not spent by what was answered 503
				a := renew()
				return a.status != 503 && w.want(a, 200, "").status == 200
			})
			w.await("it may take traffic", func() bool { return w.do("GET", "/readyz", "", nil).status == 200 })
		})
	}
}

// crowd are people who log in and out until they leave. Whatever happens, each is
// answered what he asked for, or 503.
type crowd struct {
	leave func() []httpapi.Grant // whose logout was answered 204
	ended func() int
}

func (w *world) comeAndGo(people int) crowd {
	ctx, cancel := context.WithCancel(w.t.Context())
	var all sync.WaitGroup
	var mu sync.Mutex
	var ended []httpapi.Grant
	done := func(a answer, status int) bool {
		if a.status != status && (a.status != 503 || a.header.Get("Retry-After") == "") {
			w.t.Errorf("answered %d %s", a.status, a.body)
		}
		return a.status == status
	}
	for range people {
		all.Go(func() {
			for ctx.Err() == nil {
				a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password})
				if !done(a, 200) {
					continue
				}
				g := decode[httpapi.Grant](w.t, a)
				if done(w.do("POST", "/api/logout", g.AccessToken, nil), 204) {
					mu.Lock()
					ended = append(ended, g)
					mu.Unlock()
				}
			}
		})
	}
	leave := sync.OnceValue(func() []httpapi.Grant { cancel(); all.Wait(); return ended })
	return crowd{leave, func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(ended)
	}}
}

// await waits until so many more have logged out.
func (c crowd) await(t *testing.T, more int) {
	t.Helper()
	for enough, deadline := c.ended()+more, time.Now().Add(patience); c.ended() < enough; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody logs in and out")
		}
	}
}

// The primary dies while people log in and out, and the standby takes over. Every
// logout that was answered is for good, also for a node that starts afterwards;
// every session goes on.
func TestPostgresFailover(t *testing.T) {
	pair := testenv.StartPostgresPair(t)
	w := newWorld(t, on(pair.URL))
	kept := w.login("admin")

	people := w.comeAndGo(4)
	defer people.leave()
	people.await(t, 20)
	pair.Primary.Stop()
	w.await("the node knows", func() bool { return w.do("GET", "/health", "", nil).status == 503 })
	pair.Promote(t)
	before := people.ended()
	people.await(t, 20)
	ended := people.leave()

	check := func() {
		t.Helper()
		for _, g := range ended {
			w.want(w.do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
			w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
		}
		w.verify(kept.AccessToken)
	}
	check()
	w.restart()
	check()
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: kept.RefreshToken}), 200, "")
	t.Logf("%d logouts, %d of them before", len(ended), before)
}

// On a full disk nothing is written and nobody is told otherwise; what is known
// stays known; with space again all goes on without a restart.
func TestSQLiteDiskFull(t *testing.T) {
	w := newWorld(t, func(c *config.Config) { c.Revocation.MaxStaleness = 3 * time.Second })
	db, grant := w.node.parts.DB, w.login("admin")
	limit := func(pages int) {
		t.Helper()
		if _, err := db.Exec(t.Context(), "PRAGMA max_page_count = "+strconv.Itoa(pages)); err != nil {
			t.Fatal(err)
		}
	}
	var pages int
	if err := db.QueryRow(t.Context(), "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit(pages)
	w.await("a login needs more space", func() bool {
		a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password})
		if a.status != 200 && (a.status != 503 || a.header.Get("Retry-After") == "") {
			t.Fatalf("a login is answered %d %s", a.status, a.body)
		}
		return a.status == 503
	})
	if !strings.Contains(w.log.String(), "is full; free some space") {
		t.Error("the log does not say what to do")
	}
	full := time.Now()
	w.await("reading goes on when max_staleness has passed", func() bool {
		a := w.do("GET", "/api/verify", grant.AccessToken, nil)
		if a.status != 200 && a.code() != "revocation_stale" { // a slow machine may be late once
			t.Fatalf("a token is answered %d %s", a.status, a.body)
		}
		return a.status == 200 && time.Since(full) > 2*w.cfg.Revocation.MaxStaleness
	})
	limit(pages + 1000)
	w.login("admin")
	w.await("a logout is written", func() bool {
		a := w.do("POST", "/api/logout", grant.AccessToken, nil)
		if a.status != 204 && a.code() != "revocation_stale" {
			t.Fatalf("a logout is answered %d %s", a.status, a.body)
		}
		return a.status == 204
	})
}

func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not in time: %s\n%s", what, w.log.tail())
		}
	}
}

// other is a connection of somebody else.
func other(t *testing.T, url string) *sqldb.DB {
	t.Helper()
	// Time enough for a lock that a test holds.
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, Timeout: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// metric is the sum over all labels.
func (w *world) metric(name string) float64 {
	w.t.Helper()
	n, found := sum(w.t, string(w.do("GET", "/metrics", "", nil).body), name)
	if !found {
		w.t.Fatalf("no metric %s", name)
	}
	return n
}

// sum is metric for one scrape.
func sum(t testing.TB, scrape, name string) (sum float64, found bool) {
	t.Helper()
	for line := range strings.Lines(scrape) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		fields := strings.Fields(rest)
		n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum, found = sum+n, true
	}
	return sum, found
}
