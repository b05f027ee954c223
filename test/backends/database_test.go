package backends

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
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// While all connections are held up, a request that waits longer than acquire_timeout is
// answered 503 with Retry-After, and the metrics say why. The requests that hold the
// connections end well.
func TestPoolExhausted(t *testing.T) {
	t.Parallel()
	const connections = 3 // and one more, which is kept for what the replica looks at
	url := testenv.Postgres(t)
	w := replica.New(t, func(c *config.Config) {
		c.Database.URL, c.Storage.Key = url, strings.Repeat("00", 32)
		c.Database.MaxConnections, c.Database.AcquireTimeout = connections+1, time.Second
	})
	grant := w.Login("admin")
	login := func() kit.Answer {
		return w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password})
	}

	answers := make(chan kit.Answer, connections)
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
				for a.Status == 503 && t.Context().Err() == nil {
					a = login()
				}
				answers <- a
			}()
		}
		w.Await("the logins wait for the lock", func() bool { return waiting(t, watch) == connections })
		var refused [connections]kit.Answer
		var all sync.WaitGroup
		for i := range refused {
			all.Go(func() { refused[i] = login() })
		}
		all.Wait()
		for _, a := range refused {
			if a.Status != 503 || a.Code() == "" {
				t.Errorf("a request that got no connection was answered %d %s", a.Status, a.Body)
			}
			if seconds, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || seconds < 1 {
				t.Errorf("Retry-After is %q", a.Header.Get("Retry-After"))
			}
		}
		w.Verify(grant.AccessToken) // needs no connection
		for name, least := range map[string]float64{
			"connections_in_use": connections, "connection_waits_total": connections,
			"connection_refusals_total": connections, "connection_wait_seconds_total": connections * 0.75,
		} {
			w.Await(fmt.Sprint(name, " is at least ", least), func() bool { return w.Metric("watchword_database_"+name) >= least })
		}
		return held // and the lock goes
	})
	if !errors.Is(err, held) {
		t.Fatal(err)
	}
	for range connections {
		if a := <-answers; a.Status != 200 {
			t.Errorf("a request that had a connection was answered %d %s", a.Status, a.Body)
		}
	}
	w.Await("a login", func() bool { return login().Status == 200 })
}

// waiting counts the connections that wait for a lock in a database.
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
		way, through := replica.Link(t, url)
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
			w := replica.New(t, func(c *config.Config) {
				c.Database.URL, c.Storage.Key = url, strings.Repeat("00", 32)
				c.Revocation.MaxStaleness, c.Health.Timeout = 2*time.Second, 2*time.Second
			})
			grant := w.Login("admin")
			renew := func() kit.Answer {
				return w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken})
			}
			people := comeAndGo(w, 4)
			defer people.leave()
			people.await(t, 20)

			stop()
			for range 2 {
				if a := renew(); a.Status != 503 || a.Header.Get("Retry-After") == "" {
					t.Errorf("a renewal is answered %d %s", a.Status, a.Body)
				}
			}
			w.Await("tokens are refused", func() bool {
				return w.Do("GET", "/api/verify", grant.AccessToken, nil).Code() == "revocation_stale"
			})
			w.WantBackend("database", "failed")
			w.Want(w.Do("GET", "/livez", "", nil), 200, "")

			start()
			w.Await("tokens are accepted again", func() bool {
				return w.Do("GET", "/api/verify", grant.AccessToken, nil).Status == 200
			})
			people.await(t, 20)
			for _, ended := range people.leave() {
				w.Want(w.Do("GET", "/api/verify", ended.AccessToken, nil), 401, "token_revoked")
			}
			w.Await("a renewal", func() bool { // the token was not spent by what was answered 503
				a := renew()
				return a.Status != 503 && w.Want(a, 200, "").Status == 200
			})
			w.Await("it may take traffic", func() bool { return w.Do("GET", "/readyz", "", nil).Status == 200 })
		})
	}
}

// A crowd is users who log in and out until they leave. Whatever happens, each request is
// answered as it should be, or 503.
type crowd struct {
	leave func() []httpapi.Grant // whose logout was answered 204
	ended func() int
}

func comeAndGo(w *replica.World, people int) crowd {
	ctx, cancel := context.WithCancel(w.T.Context())
	var all sync.WaitGroup
	var mu sync.Mutex
	var ended []httpapi.Grant
	done := func(a kit.Answer, status int) bool {
		if a.Status != status && (a.Status != 503 || a.Header.Get("Retry-After") == "") {
			w.T.Errorf("answered %d %s", a.Status, a.Body)
		}
		return a.Status == status
	}
	for range people {
		all.Go(func() {
			for ctx.Err() == nil {
				a := w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password})
				if !done(a, 200) {
					continue
				}
				g := kit.Decode[httpapi.Grant](w.T, a)
				if done(w.Do("POST", "/api/logout", g.AccessToken, nil), 204) {
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
	for enough, deadline := c.ended()+more, time.Now().Add(kit.Patience); c.ended() < enough; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no user logs in and out")
		}
	}
}

// other opens connections that are not the replica's.
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
