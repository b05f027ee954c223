package app

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// With all connections held up, who waits longer than acquire_timeout is told to
// come back; the metrics say why; and those who hold them end well.
func TestPoolExhausted(t *testing.T) {
	const connections = 3
	for name, url := range map[string]string{"postgres": testenv.Postgres(t), "mariadb": testenv.MariaDB(t)} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(c *config.Config) {
				c.Database.URL, c.Storage.Key = url, strings.Repeat("00", 32)
				c.Database.MaxConnections, c.Database.AcquireTimeout = connections, 300*time.Millisecond
				c.Revocation.MaxStaleness = time.Minute // whose poll waits as everybody does
			})
			grant := w.login("admin")
			login := func() answer {
				return w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password})
			}

			answers := make(chan answer, 2*connections)
			held := errors.New("held")
			err := other(t, url).InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
				// Whoever signs in writes his session, and waits for this.
				lock := "LOCK TABLE state_records IN ACCESS EXCLUSIVE MODE"
				if q.Dialect() == sqldb.MySQL {
					lock = "DELETE FROM state_records" // rolled back in the end
				}
				if _, err := q.Exec(ctx, lock); err != nil {
					return err
				}
				for range 2 * connections {
					go func() { answers <- login() }()
				}
				for range connections { // the others have the connections
					var a answer
					select {
					case a = <-answers:
					case <-ctx.Done():
						return ctx.Err()
					}
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
					"connection_refusals_total": connections, "connection_wait_seconds_total": connections * 0.25,
				} {
					if n := w.metric("watchword_database_" + name); n < least {
						t.Errorf("%s is %v, want at least %v", name, n, least)
					}
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
			w.want(login(), 200, "")
		})
	}
}

// The database goes away under requests and comes back: 503 meanwhile, for tokens
// too when revocations are no longer seen, and then all goes on without a restart.
func TestDatabaseGoesAndComesBack(t *testing.T) {
	for name, start := range map[string]func(testing.TB, ...string) *testenv.Server{"postgres": testenv.StartPostgres, "mariadb": testenv.StartMariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := start(t)
			w := newWorld(t, func(c *config.Config) {
				c.Database.URL, c.Storage.Key = server.URL, strings.Repeat("00", 32)
				c.Revocation.MaxStaleness, c.Health.Timeout = 500*time.Millisecond, 2*time.Second
			})
			grant := w.login("admin")
			renew := func() answer {
				return w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken})
			}

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
			w.want(renew(), 200, "") // the token was not spent by what was answered 503
			w.want(w.do("GET", "/readyz", "", nil), 200, "")
		})
	}
}

// The primary dies while people log in and out, and the standby takes over. Every
// logout that was answered is for good, also for a node that starts afterwards;
// every session goes on.
func TestPostgresFailover(t *testing.T) {
	pair := testenv.StartPostgresPair(t)
	w := newWorld(t, on(pair.URL))
	kept := w.login("admin")

	ctx, cancel := context.WithCancel(t.Context())
	var people sync.WaitGroup
	stop := sync.OnceFunc(func() { cancel(); people.Wait() })
	defer stop()
	var mu sync.Mutex
	var ended []httpapi.Grant // whose logout was answered 204
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(ended)
	}
	for range 4 {
		people.Go(func() {
			for ctx.Err() == nil {
				a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password})
				if a.status == 200 {
					g := decode[httpapi.Grant](t, a)
					if a = w.do("POST", "/api/logout", g.AccessToken, nil); a.status == 204 {
						mu.Lock()
						ended = append(ended, g)
						mu.Unlock()
					}
				}
				if a.status >= 400 && (a.status != 503 || a.header.Get("Retry-After") == "") {
					t.Errorf("%d %s", a.status, a.body)
					return
				}
			}
		})
	}
	w.await("people log out", func() bool { return count() > 20 })
	pair.Primary.Stop()
	w.await("the node knows", func() bool { return w.do("GET", "/health", "", nil).status == 503 })
	pair.Promote(t)
	before := count()
	w.await("people log out again", func() bool { return count() > before+20 })
	stop()

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
	w := newWorld(t, func(c *config.Config) { c.Revocation.MaxStaleness = 300 * time.Millisecond })
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
	w.await("max_staleness passes", func() bool { // and reading goes on
		w.verify(grant.AccessToken)
		return time.Since(full) > 2*w.cfg.Revocation.MaxStaleness
	})
	limit(pages + 1000)
	w.login("admin")
	w.want(w.do("POST", "/api/logout", grant.AccessToken, nil), 204, "")
}

func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not in time: %s\n%s", what, w.log.tail())
		}
	}
}

// other is a connection of somebody else.
func other(t *testing.T, url string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// metric is the sum over all labels.
func (w *world) metric(name string) (sum float64) {
	w.t.Helper()
	found := false
	for line := range strings.Lines(string(w.do("GET", "/metrics", "", nil).body)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		fields := strings.Fields(rest)
		n, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			w.t.Fatal(err)
		}
		sum, found = sum+n, true
	}
	if !found {
		w.t.Fatalf("no metric %s", name)
	}
	return sum
}
