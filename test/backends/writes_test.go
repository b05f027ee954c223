package backends

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// An ailment is why a backend takes no writes though it answers.
type ailment struct {
	change  func(cfg *config.Config)
	backend string
	reason  string
	ready   bool // logins do without the backend
	reads   bool // what it answers is still believed
	begin   func(t *testing.T)
	end     func(t *testing.T)
}

// While a backend takes no writes, the probes say so and why, the replica is alive and serves
// its keys, and verifies tokens for as long as it may. When the backend takes writes again,
// logins work within two seconds, whatever connections were made meanwhile.
func TestBackendTakesNoWrites(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) ailment{
		"postgres, the server is read-only": func(t *testing.T) ailment {
			server := testenv.StartPostgres(t)
			db := testenv.SQL(t, server.URL)
			return ailment{onDatabase(server.URL), "database", "the database takes no writes", false, false,
				statements(db, "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"),
				statements(db, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")}
		},
		"postgres, new connections are read-only": func(t *testing.T) ailment {
			server := testenv.StartPostgres(t)
			db := testenv.SQL(t, server.URL)
			return ailment{onDatabase(server.URL), "database", "the database takes no writes", false, false,
				statements(db, "ALTER DATABASE postgres SET default_transaction_read_only = on",
					"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'watchword%'"),
				statements(db, "ALTER DATABASE postgres RESET default_transaction_read_only")}
		},
		"mariadb": func(t *testing.T) ailment {
			server := testenv.StartMariaDB(t)
			db := testenv.SQL(t, server.URL)
			runOn(t, db, "CREATE USER 'service'@'127.0.0.1' IDENTIFIED BY 'secret'", "GRANT ALL ON watchword.* TO 'service'@'127.0.0.1'")
			u, err := url.Parse(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.UserPassword("service", "secret")
			return ailment{onDatabase(u.String()), "database", "the database takes no writes", false, false,
				statements(db, "SET GLOBAL read_only = 1"), statements(db, "SET GLOBAL read_only = 0")}
		},
		"redis, out of memory": func(t *testing.T) ailment {
			return onRedis(t, "redis", [][]string{{"CONFIG", "SET", "maxmemory", "1"}}, [][]string{{"CONFIG", "SET", "maxmemory", "0"}})
		},
		"redis, without its replicas": func(t *testing.T) ailment {
			return onRedis(t, "redis", [][]string{{"CONFIG", "SET", "min-replicas-to-write", "1"}}, [][]string{{"CONFIG", "SET", "min-replicas-to-write", "0"}})
		},
		"redis, which cannot save": func(t *testing.T) ailment {
			return onRedis(t, "redis", [][]string{{"CONFIG", "SET", "save", "3600 1000000"}, {"CONFIG", "SET", "dbfilename", strings.Repeat("x", 300)}, {"BGSAVE"}},
				[][]string{{"CONFIG", "SET", "dbfilename", "dump.rdb"}, {"SAVE"}})
		},
		"redis, a replica": func(t *testing.T) ailment {
			_, port, _ := strings.Cut(testenv.StartRedis(t).Addr, ":")
			return onRedis(t, "redis", [][]string{{"REPLICAOF", "127.0.0.1", port}}, [][]string{{"REPLICAOF", "NO", "ONE"}})
		},
		"redis before a database, out of memory": func(t *testing.T) ailment {
			a := onRedis(t, "tiered", [][]string{{"CONFIG", "SET", "maxmemory", "1"}}, [][]string{{"CONFIG", "SET", "maxmemory", "0"}})
			a.ready = true
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t)
			w := replica.New(t, func(cfg *config.Config) {
				flowConfig(cfg)
				a.change(cfg)
			})
			g := w.Login("admin")
			w.WantBackend(a.backend, "ok")
			w.Want(w.Do("GET", "/readyz", "", nil), 200, "")
			a.begin(t)
			w.WantBackend(a.backend, "failed")
			status := 503
			if a.ready {
				status = 200
			}
			w.Await("the probe says it", func() bool { return w.Do("GET", "/readyz", "", nil).Status == status })
			w.Await("the reason is known", func() bool { // connections may have been lost before
				h := w.Do("GET", "/health", "", nil)
				return h.Status == 503 && strings.Contains(string(h.Body), a.reason) && h.Header.Get("Retry-After") != ""
			})
			ready := w.Do("GET", "/readyz", "", nil)
			if ready.Status != status || !a.ready && (ready.Header.Get("Retry-After") == "" || a.reads && !strings.Contains(string(ready.Body), a.reason)) {
				t.Errorf("ready: %d %s", ready.Status, ready.Body)
			}
			w.Want(w.Do("GET", "/livez", "", nil), 200, "")
			w.Want(w.Do("GET", "/api/pkeys", "", nil), 200, "")
			if login := loginOf(w); a.ready != (login.Status == 200) || login.Status != 200 && (login.Status != 503 || login.Header.Get("Retry-After") == "") {
				t.Errorf("a login: %d %s", login.Status, login.Body)
			}
			if a.reads {
				w.Want(w.Do("GET", "/api/verify", g.AccessToken, nil), 200, "")
			}
			for range 20 { // connections are made meanwhile, as many as there may be
				go loginOf(w)
			}
			w.Await("the probe says it still", func() bool { return w.Do("GET", "/health", "", nil).Status == 503 })
			a.end(t)
			ended := time.Now()
			w.Await("a login", func() bool { return loginOf(w).Status == 200 })
			kit.Within(t, "a login works", time.Since(ended), 2*time.Second, func() { loginOf(w) })
			for range 20 { // over whatever connection
				if login := loginOf(w); login.Status != 200 {
					t.Errorf("a later login: %d %s\n%s", login.Status, login.Body, w.Log.Tail())
				}
			}
			w.WantBackend(a.backend, "ok")
			w.Await("it is ready", func() bool { return w.Do("GET", "/readyz", "", nil).Status == 200 })
			w.Want(w.Do("GET", "/api/verify", g.AccessToken, nil), 200, "")
		})
	}
}

func loginOf(w *replica.World) kit.Answer {
	a, err := w.Try(w.Request("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password}))
	if err != nil {
		return kit.Answer{}
	}
	return a
}

func onDatabase(url string) func(*config.Config) {
	return func(cfg *config.Config) { cfg.Database.URL = url }
}

func onRedis(t *testing.T, backend string, begin, end [][]string) ailment {
	url := testenv.StartRedis(t, "--enable-protected-configs", "yes").URL
	c := kit.Redis(t, url)
	do := func(list [][]string) func(t *testing.T) {
		return func(t *testing.T) {
			for _, words := range list {
				// BGSAVE fails later, and the server remembers that.
				if err := c.Do(t.Context(), c.B().Arbitrary(words...).Build()).Error(); err != nil {
					t.Fatalf("%s: %v", words, err)
				}
			}
		}
	}
	return ailment{func(cfg *config.Config) { cfg.Redis.URL, cfg.State.Backend = url, config.StateBackend(backend) }, "redis", "Redis takes no writes", false, true, do(begin), do(end)}
}
