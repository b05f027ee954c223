package backends

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A pair is a server that takes writes and one that follows it, until it is frozen: then it
// goes on answering what was true at that moment.
type pair struct {
	url               string // of the first
	primary, follower *testenv.Server
	freeze            func(t *testing.T)
	promote           func(t *testing.T) // the follower takes writes
}

func pairs() map[string]func(t *testing.T) pair {
	return map[string]func(t *testing.T) pair{"postgres": postgresPair, "mariadb": mariadbPair}
}

func postgresPair(t *testing.T) pair {
	p := testenv.StartPostgresPair(t)
	url := strings.Replace(strings.TrimSuffix(p.URL, "&target_session_attrs=read-write"), ","+p.Standby.Addr, "", 1)
	standby := testenv.SQL(t, p.Standby.URL)
	return pair{url, p.Primary, p.Standby,
		func(t *testing.T) { runOn(t, standby, "SELECT pg_wal_replay_pause()") },
		func(t *testing.T) { runOn(t, standby, "SELECT pg_promote()") }}
}

func mariadbPair(t *testing.T) pair {
	first := testenv.StartMariaDB(t, "--log-bin=binlog", "--server-id=1")
	second := testenv.StartMariaDB(t, "--server-id=2")
	from, to := testenv.SQL(t, first.URL), testenv.SQL(t, second.URL)
	_, port, _ := strings.Cut(first.Addr, ":")
	runOn(t, from, "CREATE USER 'service'@'127.0.0.1' IDENTIFIED BY 'secret'", "GRANT ALL ON watchword.* TO 'service'@'127.0.0.1'",
		"CREATE USER 'copy'@'127.0.0.1' IDENTIFIED BY 'secret'", "GRANT REPLICATION SLAVE ON *.* TO 'copy'@'127.0.0.1'")
	runOn(t, to, fmt.Sprintf("CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = %s, MASTER_USER = 'copy', MASTER_PASSWORD = 'secret'", port),
		"SET GLOBAL read_only = 1", "START SLAVE")
	u, err := url.Parse(first.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("service", "secret")
	return pair{u.String(), first, second,
		func(t *testing.T) {
			// Until the other one has everything.
			var gtid string
			if err := from.QueryRowContext(t.Context(), "SELECT @@gtid_binlog_pos").Scan(&gtid); err != nil {
				t.Fatal(err)
			}
			var late int
			if err := to.QueryRowContext(t.Context(), "SELECT MASTER_GTID_WAIT(?, 60)", gtid).Scan(&late); err != nil || late != 0 {
				t.Fatal(late, err)
			}
			runOn(t, to, "STOP SLAVE")
		},
		func(t *testing.T) { runOn(t, to, "SET GLOBAL read_only = 0") }}
}

func runOn(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, one := range statements {
		if _, err := db.ExecContext(context.Background(), one); err != nil {
			t.Fatalf("%s: %v", one, err)
		}
	}
}

// statements returns a function that runs statements.
func statements(db *sql.DB, list ...string) func(t *testing.T) {
	return func(t *testing.T) { runOn(t, db, list...) }
}

// A replica whose connections come to lead to a server that is behind accepts no revoked token
// for longer than the bound, says nowhere that it knows the log, and says why. When its
// connections lead to the primary again, everything works within two seconds.
func TestFollowerIsNotBelieved(t *testing.T) {
	for name, start := range pairs() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t)
			link, through := replica.Link(t, p.url)
			there := replica.Join(t, p.url, flowConfig)
			misled := map[string]*replica.World{
				"view": replica.Join(t, through, flowConfig),
				"shared": replica.Join(t, through, func(cfg *config.Config) {
					flowConfig(cfg)
					cfg.Revocation.Check = "shared"
				}),
			}
			there.User("tester")
			admin, out := there.Login("admin"), there.Login("tester")
			for _, w := range misled {
				w.Await("the token is accepted", func() bool { return w.Do("GET", "/api/verify", out.AccessToken, nil).Status == 200 })
			}
			p.freeze(t)
			link.Lead(p.follower.Addr)
			link.Set(testenv.Fault{Cut: true})
			link.Set(testenv.Fault{})
			there.Want(there.Do("POST", "/api/logout", out.AccessToken, nil), 204, "")
			answered := time.Now()
			for name, w := range misled {
				w.Await("the bound has passed", func() bool {
					began := time.Now()
					a := w.Do("GET", "/api/verify", out.AccessToken, nil)
					if began.Sub(answered) > flowBound && a.Status == 200 {
						t.Fatalf("%s: accepted %v after the logout was answered", name, began.Sub(answered))
					}
					return began.Sub(answered) > 2*flowBound
				})
				// Nobody else's token either: what was revoked of it is not known.
				w.Want(w.Do("GET", "/api/verify", admin.AccessToken, nil), 503, "revocation_stale")
				for _, a := range []kit.Answer{
					w.Do("GET", "/readyz", "", nil),
					w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password}),
					w.Do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: out.RefreshToken}),
				} {
					if a.Status != 503 || a.Header.Get("Retry-After") == "" {
						t.Errorf("%s: answered %d %s", name, a.Status, a.Body)
					}
				}
				if age := kit.Decode[struct {
					Age int64 `json:"age_ms"`
				}](t, w.Do("GET", "/api/revocations?after=0", "", nil)).Age; age < flowBound.Milliseconds() {
					t.Errorf("%s: the feed says that it is %d ms old", name, age)
				}
				if n := strings.Count(w.Log.String(), "takes no writes, so its answers do not count"); n != 1 {
					t.Errorf("%s: the reason was logged %d times\n%s", name, n, w.Log.Tail())
				}
			}
			link.Lead(p.primary.Addr)
			for name, w := range misled {
				mended := time.Now()
				works := func() bool {
					return w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: kit.Password}).Status == 200
				}
				w.Await("a login", works)
				kit.Within(t, name+": a login works", time.Since(mended), 2*time.Second, func() { works() })
				w.Await("it is ready", func() bool { return w.Do("GET", "/readyz", "", nil).Status == 200 })
				w.Want(w.Do("GET", "/api/verify", out.AccessToken, nil), 401, "token_revoked")
				w.Want(w.Do("GET", "/api/verify", admin.AccessToken, nil), 200, "")
			}
		})
	}
}
