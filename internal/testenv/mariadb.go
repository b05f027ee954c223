package testenv

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
)

var mariadb shared

// MariaDB returns the URL of an empty database on the MariaDB server of this
// process.
func MariaDB(t testing.TB) string {
	t.Helper()
	s := mariadb.get(t, startMariaDB)
	name := "t" + strings.ToLower(rand.Text()[:12])
	execSQL(t, "mysql", s.mysqlDSN(), "CREATE DATABASE "+name)
	t.Cleanup(func() { execSQL(t, "mysql", s.mysqlDSN(), "DROP DATABASE "+name) })
	return strings.TrimSuffix(s.URL, "watchword") + name
}

// StartMariaDB starts a MariaDB server for this test alone. Options are those of
// mariadbd: "--max-connections=20".
func StartMariaDB(t testing.TB, options ...string) *Server {
	t.Helper()
	s := startMariaDB(t, options...)
	t.Cleanup(s.Stop)
	return s
}

func startMariaDB(t testing.TB, options ...string) *Server {
	t.Helper()
	s := newServer(t, "mariadb", "KILL")
	// The temporary directory is its own: a server that starts removes what looks like
	// leftovers in it, and would take the tables of one that is being set up.
	s.install(t, "mariadbd", func(dir string) []string {
		return []string{
			"mariadb-install-db", "--no-defaults", "--datadir=" + filepath.Join(dir, "data"), "--skip-test-db",
			"--auth-root-authentication-method=normal", "--skip-name-resolve", "--innodb-log-file-size=8M", "--tmpdir=" + dir,
		}
	})
	init := s.write(t, "init.sql", fmt.Sprintf(`CREATE DATABASE IF NOT EXISTS watchword;
CREATE USER IF NOT EXISTS 'watchword'@'127.0.0.1' IDENTIFIED BY '%s';
GRANT ALL ON *.* TO 'watchword'@'127.0.0.1' WITH GRANT OPTION;
ALTER USER 'root'@'localhost' ACCOUNT LOCK;
`, s.secret))
	s.command = func() []string {
		return append([]string{
			program(t, "mariadbd"), "--no-defaults", "--datadir=" + s.data(), "--init-file=" + init,
			"--tmpdir=" + s.dir, "--bind-address=127.0.0.1", "--port=" + s.port(), "--skip-name-resolve",
			"--socket=" + filepath.Join(s.dir, "socket"), "--pid-file=" + filepath.Join(s.dir, "pid"),
			"--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M",
			"--innodb-flush-method=nosync", "--performance-schema=off", "--skip-log-bin",
		}, options...)
	}
	s.answers = func(ctx context.Context) error {
		s.URL = fmt.Sprintf("mysql://watchword:%s@%s/watchword", s.secret, s.Addr)
		return isOurs(ctx, "mysql", s.mysqlDSN(), "SELECT @@datadir", s.data())
	}
	s.Start(t)
	return s
}

// mysqlDSN is the server's URL in the driver's own form.
func (s *Server) mysqlDSN() string {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.DBName = "watchword", s.secret, "tcp", s.Addr, "watchword"
	cfg.Logger = &mysql.NopLogger{}
	return cfg.FormatDSN()
}
