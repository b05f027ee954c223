package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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
	t.Parallel()
	const connections = 3 // and one more, which is kept for what the replica looks at
	url := testenv.Postgres(t)
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
		// A login writes a session, and waits for this.
		if _, err := q.Exec(ctx, "LOCK TABLE state_records IN ACCESS EXCLUSIVE MODE"); err != nil {
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
		var refused [connections]answer
		var all sync.WaitGroup
		for i := range refused {
			all.Go(func() { refused[i] = login() })
		}
		all.Wait()
		for _, a := range refused {
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
}

// While all connections work at statements that take long, for longer than a view may
// be stale, tokens are verified, what another replica revokes is seen, and the replica
// is not taken for silent.
func TestVerifyingWhileThePoolIsExhausted(t *testing.T) {
	const connections = 3
	t.Parallel()
	url, long := testenv.MariaDB(t), "SELECT 1 + SLEEP(2)" // without a bell, that a connection of its own brings
	patient := func(c *config.Config) {
		c.Database.MaxConnections, c.Database.AcquireTimeout = connections, time.Minute
		c.Revocation.MaxStaleness = 5 * time.Second
		storedKeys(c)
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
	for begin := time.Now(); time.Since(begin) < w.cfg.Revocation.MaxStaleness+time.Second; <-tick.C {
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
}

// waiting counts who waits for a lock in a database.
func waiting(t *testing.T, db *sqldb.DB) (n int) {
	t.Helper()
	const query = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
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
	t.Parallel()
	behindALink := func(t *testing.T, url string) (string, func(), func()) {
		way, through := linkTo(t, url)
		return through, func() { way.Set(testenv.Fault{Cut: true}) }, func() { way.Set(testenv.Fault{}) }
	}
	for name, open := range map[string]func(t *testing.T) (url string, stop, start func()){
		"postgres": func(t *testing.T) (string, func(), func()) { return behindALink(t, testenv.Postgres(t)) },
		"mariadb":  func(t *testing.T) (string, func(), func()) { return behindALink(t, testenv.MariaDB(t)) },
		"pgbouncer": func(t *testing.T) (string, func(), func()) {
			s := testenv.PgBouncer(t, testenv.Postgres(t))
			return s.URL, s.Stop, func() { s.Start(t) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, stop, start := open(t)
			w := newWorld(t, func(c *config.Config) {
				c.Database.URL, c.Storage.Key = url, strings.Repeat("00", 32)
				c.Revocation.MaxStaleness, c.Health.Timeout = 2*time.Second, 2*time.Second
			})
			grant := w.login("admin")
			renew := func() answer {
				return w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken})
			}
			people := w.comeAndGo(4)
			defer people.leave()
			people.await(t, 20)

			stop()
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

			start()
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
// answered what they asked for, or 503.
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

// On a full disk nothing is written and nobody is told otherwise; what is known
// stays known; with space again all goes on without a restart.
func TestSQLiteDiskFull(t *testing.T) {
	synctest.Test(t, sqliteDiskFull)
}

func sqliteDiskFull(t *testing.T) {
	w := newQuietWorld(t, func(c *config.Config) { c.Revocation.MaxStaleness = 3 * time.Second })
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
	for full := time.Now(); time.Since(full) < 3*w.cfg.Revocation.MaxStaleness; time.Sleep(time.Second) {
		w.verify(grant.AccessToken) // reading goes on
	}
	limit(pages + 1000)
	w.login("admin")
	w.want(w.do("POST", "/api/logout", grant.AccessToken, nil), 204, "")
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
