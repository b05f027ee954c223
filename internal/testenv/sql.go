package testenv

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// SQL opens connections of the test's own to a PostgreSQL or MariaDB, given as its URL.
func SQL(t testing.TB, target string) *sql.DB {
	t.Helper()
	driver, dsn := "pgx", target
	if u, err := url.Parse(target); err == nil && u.Scheme == "mysql" {
		cfg := mysql.NewConfig()
		cfg.User = u.User.Username()
		cfg.Passwd, _ = u.User.Password()
		cfg.Net, cfg.Addr, cfg.DBName = "tcp", u.Host, strings.TrimPrefix(u.Path, "/")
		driver, dsn = "mysql", cfg.FormatDSN()
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Tenant makes a database on a PostgreSQL or MariaDB server, and a user for it alone, and
// returns its URL: the users of testenv's other URLs have every right on their servers.
func (s *Server) Tenant(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	driver, dsn, name, password := "pgx", s.URL, "t"+strings.ToLower(rand.Text()[:12]), rand.Text()
	statements := []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", name, password),
		fmt.Sprintf("CREATE DATABASE %s OWNER %s", name, name),
	}
	if u.Scheme == "mysql" {
		driver, dsn = "mysql", s.mysqlDSN()
		statements = []string{
			"CREATE DATABASE " + name,
			fmt.Sprintf("CREATE USER %s@'127.0.0.1' IDENTIFIED BY '%s'", name, password),
			fmt.Sprintf("GRANT ALL ON %s.* TO %s@'127.0.0.1'", name, name),
		}
	}
	for _, statement := range statements {
		execSQL(t, driver, dsn, statement)
	}
	u.User, u.Path = url.UserPassword(name, password), "/"+name
	return u.String()
}
