package backends

import (
	"database/sql"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// worksOn starts a replica on a database, and has a user log in, renew, log out, and an
// administrator change something.
func worksOn(t *testing.T, database string) *replica.World {
	t.Helper()
	w := replica.New(t, func(c *config.Config) { c.Database.URL = database; kit.StoredKeys(c) })
	id := w.User("anna", "a=1", "b=2", "c=3")
	g := w.Login("anna")
	if claims := w.Verify(g.AccessToken); claims["a"] != "1" || claims["b"] != "2" || claims["c"] != "3" {
		t.Errorf("the claims are %v", claims)
	}
	g, a := w.Renew(g.RefreshToken)
	w.Want(a, 200, "")
	other := w.Login("anna")
	w.Want(w.Do("POST", "/api/logout", g.AccessToken, nil), 204, "")
	w.Want(w.Do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
	w.Verify(other.AccessToken)
	admin := w.Login("admin").AccessToken
	w.Want(w.Do("PATCH", "/api/users/"+id, admin, map[string]any{"first_name": `Ann\a "'; --`}), 200, "")
	w.Want(w.Do("DELETE", "/api/users/"+id, admin, nil), 204, "")
	w.Want(w.Do("GET", "/health", "", nil), 200, "")
	return w
}

// Each setting of a role or a database is one under which a replica works, or is refused at
// the start with the reason. Those of one line do not hide what another one does.
func TestPostgresSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		settings []string
		refused  string
	}{
		{[]string{
			"statement_timeout = '10ms'", "default_transaction_isolation = serializable", "synchronous_commit = off",
			"bytea_output = escape", "client_encoding = LATIN1", "search_path = own, public",
		}, ""},
		{[]string{
			"lock_timeout = '1ms'", "idle_session_timeout = '300ms'", "default_transaction_deferrable = on", "session_replication_role = replica",
			"standard_conforming_strings = off", "DateStyle = 'German'", "plan_cache_mode = force_generic_plan",
		}, ""},
		{[]string{
			"idle_in_transaction_session_timeout = '1ms'", "TimeZone = 'Asia/Kathmandu'", "IntervalStyle = sql_standard", "lc_messages = 'C'",
		}, ""},
		{[]string{"search_path = nowhere"}, "no schema of the search_path exists"},
		{[]string{"default_transaction_read_only = on"}, "takes no writes"},
	} {
		t.Run(strings.Join(c.settings, ", "), func(t *testing.T) {
			t.Parallel()
			database := testenv.Postgres(t)
			u, err := url.Parse(database)
			if err != nil {
				t.Fatal(err)
			}
			run(t, "pgx", database, "CREATE SCHEMA own")
			for _, setting := range c.settings {
				run(t, "pgx", database, "ALTER DATABASE "+u.Path[1:]+" SET "+setting)
			}
			if c.refused != "" {
				if err := contact(t, database); err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("%v, want %q", err, c.refused)
				}
				return
			}
			w := worksOn(t, database)
			for _, setting := range c.settings {
				name, _, _ := strings.Cut(setting, " ")
				if want := map[string]string{"synchronous_commit": "on", "statement_timeout": "0", "session_replication_role": "origin"}[name]; want != "" {
					var has string
					if err := w.Parts().DB.QueryRow(t.Context(), "SELECT current_setting(?)", name).Scan(&has); err != nil || has != want {
						t.Errorf("%s is %q, %v", name, has, err)
					}
				}
			}
		})
	}
}

// Behind PgBouncer a replica cannot change a setting for itself.
func TestPostgresSettingsBehindPgBouncer(t *testing.T) {
	t.Parallel()
	database := testenv.Postgres(t)
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	alter := "ALTER DATABASE " + u.Path[1:]
	run(t, "pgx", database, alter+" SET synchronous_commit = off", alter+" SET bytea_output = escape", alter+" SET default_transaction_isolation = serializable")
	pooler := testenv.PgBouncer(t, database)
	if err := contact(t, pooler.URL); err == nil || !strings.Contains(err.Error(), "ALTER ROLE … SET synchronous_commit = on") {
		t.Errorf("commits that do not last: %v", err)
	}
	run(t, "pgx", database, alter+" SET synchronous_commit = on")
	kit.Eventually(t, func() error { return contact(t, testenv.PgBouncer(t, database).URL) })
}

// mariadbAdmin is the driver's own name of a server.
func mariadbAdmin(t *testing.T, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	admin := mysql.NewConfig()
	admin.User, admin.Net, admin.Addr = u.User.Username(), "tcp", u.Host
	admin.Passwd, _ = u.User.Password()
	return admin.FormatDSN()
}

// The same for the variables of a server.
func TestMariaDBSettings(t *testing.T) {
	t.Parallel()
	server := testenv.StartMariaDB(t, "--log-bin", "--binlog-format=MIXED", "--lower-case-table-names=1")
	admin := mariadbAdmin(t, server.URL)
	for i, c := range []struct{ settings, refused string }{
		{"binlog_format='STATEMENT' tx_isolation='READ-COMMITTED' sql_select_limit=1 max_join_size=1 max_statement_time=0.0001", ""},
		{"tx_isolation='READ-UNCOMMITTED' completion_type='CHAIN' sql_mode='ANSI,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT' " +
			"wait_timeout=1 time_zone='+13:00' innodb_flush_log_at_trx_commit=0 default_storage_engine='MyISAM' character_set_server='latin1'", ""},
		{"tx_isolation='SERIALIZABLE' completion_type='RELEASE' sql_mode='ORACLE' autocommit=0 " +
			"tx_read_only=1 foreign_key_checks=0 unique_checks=0 sql_safe_updates=1", ""},
		{"max_allowed_packet=65536", "max_allowed_packet of the server is 65536 bytes"},
	} {
		t.Run(c.settings, func(t *testing.T) {
			name := "settings" + string(rune('a'+i))
			run(t, "mysql", admin, "CREATE DATABASE "+name)
			for setting := range strings.FieldsSeq(c.settings) {
				variable, _, _ := strings.Cut(setting, "=")
				var usual string
				ask(t, admin, "SELECT @@GLOBAL."+variable, &usual)
				if _, err := strconv.ParseFloat(usual, 64); err != nil {
					usual = "'" + usual + "'"
				}
				defer run(t, "mysql", admin+"?tx_read_only=0", "SET GLOBAL "+variable+"="+usual)
			}
			run(t, "mysql", admin, "SET GLOBAL "+strings.ReplaceAll(c.settings, " ", ", GLOBAL "))
			database := edit(t, server.URL, func(u *url.URL) { u.Path = "/" + name })
			if c.refused != "" {
				if err := contact(t, database); err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("%v, want %q", err, c.refused)
				}
				return
			}
			w := worksOn(t, database)
			if strings.Contains(c.settings, "flush_log") && !strings.Contains(w.Log.String(), "innodb_flush_log_at_trx_commit") {
				t.Error("nothing is said of commits that do not last")
			}
		})
	}
}

func ask(t *testing.T, dsn, query string, value *string) {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), query).Scan(value); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}
