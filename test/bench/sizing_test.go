package bench

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// What a login, a renewal and a logout cost a replica and PostgreSQL: rows written by table, bytes of the
// write-ahead log and of the tables with their indexes, and CPU time of each. docs/deployment/sizing.md
// reckons with it. Each login is of another user, first from an address that is new and then from one that is
// known.
func BenchmarkDatabaseWrites(b *testing.B) {
	const users = 400
	database := testenv.Postgres(b)
	dir := b.TempDir()
	var file strings.Builder
	file.WriteString("users:\n")
	for i := range users {
		fmt.Fprintf(&file, "  - {username: %s, password_hash: %q}\n", stormUser(i), stormHash)
	}
	if err := os.WriteFile(filepath.Join(dir, "init.yaml"), []byte(file.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	watchword, _, _ := servers(b, "DATABASE_URL="+database, "WATCHWORD_USERS_INIT_FILE="+filepath.Join(dir, "init.yaml"),
		"WATCHWORD_STORAGE_KEY="+base64.StdEncoding.EncodeToString(make([]byte, 32)), "WATCHWORD_SERVER_TRUSTED_PROXIES=127.0.0.1/32")
	databaseCPU := postgresCPU(b, database)
	conn, err := pgx.Connect(b.Context(), database)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(context.Background()) })

	grants := make([]grant, users)
	from := func(r *http.Request, i int) *http.Request {
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.0.%d.%d", i/256, i%256))
		return r
	}
	log := func(i int) *http.Request { return from(stormLogin(watchword, i), i) }
	for b.Loop() {
		for _, step := range []struct {
			name    string
			request func(i int) *http.Request
			grants  bool
		}{
			{"login-new", log, true},
			{"login-known", log, true},
			{"renew", func(i int) *http.Request {
				return from(post(watchword, "/api/renew", map[string]string{"refresh_token": grants[i].RefreshToken}), i)
			}, true},
			{"logout", func(i int) *http.Request {
				r := from(post(watchword, "/api/logout", nil), i)
				r.Header.Set("Authorization", "Bearer "+grants[i].AccessToken)
				return r
			}, false},
		} {
			before, wal, size := written(b, conn), number(b, conn, walEnd), number(b, conn, tableSizes)
			cpu, theirs := watchword.cpu(b), databaseCPU()
			for i := range users {
				resp, err := watchword.client.Do(step.request(i))
				if err != nil {
					b.Fatal(err)
				}
				if step.grants {
					if err := json.NewDecoder(resp.Body).Decode(&grants[i]); err != nil {
						b.Fatal(err)
					}
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode >= 300 {
					b.Fatal(step.name, resp.Status)
				}
			}
			cpu, theirs = watchword.cpu(b)-cpu, databaseCPU()-theirs
			after := written(b, conn)
			var rows int64
			for _, table := range slices.Sorted(maps.Keys(after)) {
				if n := after[table] - before[table]; n > users/4 { // not what goes on by itself
					b.Logf("%s: %s %.2f rows", step.name, table, float64(n)/users)
					rows += n
				}
			}
			b.ReportMetric(float64(rows)/users, step.name+"-rows")
			b.ReportMetric(float64(number(b, conn, walEnd)-wal)/users, step.name+"-wal-B")
			b.ReportMetric(float64(number(b, conn, tableSizes)-size)/users, step.name+"-kept-B")
			b.ReportMetric(float64(cpu.Microseconds())/1e3/users, step.name+"-cpu-ms")
			b.ReportMetric(float64(theirs.Microseconds())/1e3/users, step.name+"-database-cpu-ms")
		}
		b.ReportMetric(0, "ns/op")
	}
}

// written is how many rows were inserted, changed and deleted in each table. PostgreSQL says so some
// time after a transaction: a connection that is idle tells what it has done within a second.
func written(b *testing.B, conn *pgx.Conn) map[string]int64 {
	b.Helper()
	time.Sleep(2 * time.Second)
	rows, err := conn.Query(b.Context(), "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables")
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	counts := map[string]int64{}
	for rows.Next() {
		var table string
		var n int64
		if err := rows.Scan(&table, &n); err != nil {
			b.Fatal(err)
		}
		counts[table] = n
	}
	if err := rows.Err(); err != nil {
		b.Fatal(err)
	}
	return counts
}

const (
	walEnd     = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
	tableSizes = "SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_stat_user_tables"
)

func number(b *testing.B, conn *pgx.Conn, query string) (n int64) {
	b.Helper()
	if err := conn.QueryRow(b.Context(), query).Scan(&n); err != nil {
		b.Fatal(err)
	}
	return n
}
