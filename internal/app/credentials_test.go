package app

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// A backend is a server on which a replica has a user of its own, whose password changes.
type backend struct {
	url      string                          // of an administrator
	password func(t *testing.T, text string) // makes it the user's, who is made the first time
	kick     func(t *testing.T)              // ends the user's connections
	user     string
	set      func(c *config.Config, url string)
}

// as is the URL of the user.
func (b *backend) as(password string) string {
	u, err := url.Parse(b.url)
	if err != nil {
		panic(err)
	}
	u.User = url.UserPassword(b.user, password)
	return u.String()
}

func (b *backend) database() string {
	u, _ := url.Parse(b.url)
	return strings.TrimPrefix(u.Path, "/")
}

func onPostgres(t *testing.T) *backend {
	b := &backend{url: testenv.Postgres(t), set: func(c *config.Config, url string) { c.Database.URL = url }}
	b.user = "u" + b.database()
	admin := openSQL(t, "pgx", b.url)
	execute(t, admin, "CREATE ROLE "+b.user+" LOGIN", "GRANT ALL ON DATABASE "+b.database()+" TO "+b.user, "GRANT ALL ON SCHEMA public TO "+b.user)
	t.Cleanup(func() {
		ctx := context.Background()
		_, _ = admin.ExecContext(ctx, "DROP OWNED BY "+b.user)
		_, _ = admin.ExecContext(ctx, "DROP ROLE "+b.user)
	})
	b.password = func(t *testing.T, text string) { execute(t, admin, "ALTER ROLE "+b.user+" PASSWORD '"+text+"'") }
	b.kick = func(t *testing.T) {
		execute(t, admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+b.user+"'")
	}
	return b
}

func onMariaDB(t *testing.T) *backend {
	b := &backend{url: testenv.MariaDB(t), set: func(c *config.Config, url string) { c.Database.URL = url }}
	b.user = "u" + b.database()
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr = u.User.Username(), "tcp", u.Host
	cfg.Passwd, _ = u.User.Password()
	admin := openSQL(t, "mysql", cfg.FormatDSN())
	execute(t, admin, "CREATE USER "+b.user, "GRANT ALL ON "+b.database()+".* TO "+b.user)
	t.Cleanup(func() { _, _ = admin.ExecContext(context.Background(), "DROP USER "+b.user) })
	b.password = func(t *testing.T, text string) {
		execute(t, admin, "SET PASSWORD FOR "+b.user+" = PASSWORD('"+text+"')")
	}
	b.kick = func(t *testing.T) { execute(t, admin, "KILL USER "+b.user) }
	return b
}

func onRedis(t *testing.T) *backend {
	b := &backend{url: testenv.Redis(t), user: "w", set: func(c *config.Config, url string) { c.Redis.URL, c.State.Backend = url, "redis" }}
	admin := kit.Redis(t, b.url)
	do := func(t *testing.T, words ...string) {
		t.Helper()
		if err := admin.Do(t.Context(), admin.B().Arbitrary(words...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	b.password = func(t *testing.T, text string) {
		do(t, "ACL", "SETUSER", b.user, "on", "resetpass", ">"+text, "~*", "&*", "+@all")
	}
	b.kick = func(t *testing.T) { do(t, "CLIENT", "KILL", "USER", b.user) }
	return b
}

func openSQL(t *testing.T, driver, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func execute(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// The password of a database or of Redis changes while replicas run, on the server first or
// in the file first. A request may fail for each connection that was killed, and none
// because the password was denied.
func TestPasswordsChange(t *testing.T) {
	t.Parallel()
	const connections = 2
	denied := regexp.MustCompile("28P01|Access denied|WRONGPASS|NOAUTH")
	for name, on := range map[string]func(*testing.T) *backend{"postgres": onPostgres, "mariadb": onMariaDB, "redis": onRedis} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := on(t)
			b.password(t, "one")
			// As Kubernetes does it: url -> ..data/url, and ..data is replaced.
			dir, n := t.TempDir(), 0
			file := filepath.Join(dir, "url")
			write := func(text string) {
				t.Helper()
				n++
				data := fmt.Sprint("..", n)
				if err := os.Mkdir(filepath.Join(dir, data), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, data, "url"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Symlink(data, filepath.Join(dir, "next")); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "..data")); err != nil {
					t.Fatal(err)
				}
			}
			write(b.as("one"))
			if err := os.Symlink("..data/url", file); err != nil {
				t.Fatal(err)
			}
			cfg := testConfig(t)
			if name == "postgres" { // which has a connection of its own for notifications
				cfg = clusterConfig(t, "")
			}
			storedKeys(cfg)
			cfg.Database.MaxConnections = connections
			b.set(cfg, b.as("one"))
			cfg.Complete()
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			w := &kit.World{Client: kit.Client{T: t, Log: &logBuffer{}}}
			w.Open = func(ctx context.Context, logger *slog.Logger) (kit.Replica, error) {
				return New(ctx, Options{Config: cfg, Version: "test", Logger: logger, SecretFiles: map[string]string{"database.url": file, "redis.url": file}})
			}
			w.Start()
			t.Cleanup(w.Stop)
			logged := func(what string) {
				t.Helper()
				kit.Await(t, "the log says "+what, func() bool { return strings.Contains(w.Log.String(), what) }, w.Log.Tail)
			}
			g := w.Login("admin")
			status := func(a kit.Answer) int { return a.Status }
			// asks returns how many logins failed, and the log entries of those that were denied.
			asks := func(when string) (failed int, entries []string) {
				t.Helper()
				from := len(w.Log.String())
				for range 8 {
					a := kit.Patiently(func() kit.Answer {
						return w.Do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password})
					}, status)
					if a.Status != 200 {
						t.Logf("%s: %d %s", when, a.Status, a.Body)
						failed++
					}
				}
				for line := range strings.Lines(w.Log.String()[from:]) {
					if strings.Contains(line, "request refused") && denied.MatchString(line) {
						entries = append(entries, line)
					}
				}
				return failed, entries
			}
			works := func(when string) {
				t.Helper()
				failed, entries := asks(when)
				for _, entry := range entries {
					t.Errorf("%s: %s", when, entry)
				}
				if failed > connections {
					t.Fatalf("%s: %d requests failed\n%s", when, failed, w.Log.Tail())
				}
				var next httpapi.Grant
				a := kit.Patiently(func() (a kit.Answer) { next, a = w.Renew(g.RefreshToken); return a }, status)
				if a.Status != 200 {
					t.Fatalf("%s: the renewal: %d %s", when, a.Status, a.Body)
				}
				g = next
			}

			// A connection that a busy machine has lost cannot be made anew while the file has another
			// password than the server. Then all are made again, and asked again.
			kit.Eventually(t, func() error {
				b.password(t, "two")
				failed, _ := asks("with connections from before")
				if failed == 0 {
					return nil
				}
				b.password(t, "one")
				asks("with the password of both")
				return fmt.Errorf("%d requests failed with connections from before", failed)
			})
			write(b.as("two"))
			b.kick(t)
			works("the server had the new password first")

			write(b.as("three"))
			b.kick(t)
			works("the file has the new password first")
			b.kick(t)
			works("and the server still has the former one")
			b.password(t, "three")
			b.kick(t)
			works("now the server has it, too")
			logged("credentials")

			write("")
			b.kick(t)
			works("the file is empty")
			logged("is empty")
			write(b.as("three")[:20])
			b.kick(t)
			works("the file is half written")
			logged("it names another server")
			write(strings.Replace(b.as("three"), "three", "%zz", 1))
			b.kick(t)
			works("the file has no URL")
			if err := os.Remove(filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
			b.kick(t)
			works("the file is gone")
			logged("no such file")
			write(b.as("four") + "\r\n")
			b.password(t, "four")
			b.kick(t)
			works("the file is there again")
			if name == "postgres" {
				rings := func() float64 {
					n, _ := kit.Sum(t, string(w.Do("GET", "/metrics", "", nil).Body), "watchword_bell_rings_total")
					return n
				}
				before := rings()
				kit.Eventually(t, func() error {
					w.Want(w.Do("POST", "/api/logout", w.Login("admin").AccessToken, nil), 204, "")
					if rings() == before {
						return fmt.Errorf("no notification came")
					}
					return nil
				})
			}
			for _, secret := range []string{"three", "four", ":two@"} {
				if strings.Contains(w.Log.String(), secret) {
					t.Errorf("the log has the password %q", secret)
				}
			}
		})
	}
}
