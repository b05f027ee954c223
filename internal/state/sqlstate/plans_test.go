package sqlstate

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// Every operation on a record searches by its key, and those on an owner's records by the
// beginning of the key, however many records other owners have.
func TestNoOperationWalksAllRecords(t *testing.T) {
	for name, tt := range map[string]struct{ url, analyze, explain, byKey, byOwner, page string }{
		"sqlite": {
			"sqlite:" + filepath.Join(t.TempDir(), "w.db"), "SELECT 1", "EXPLAIN QUERY PLAN ",
			`INDEX \S+ \(kind=\? AND owner=\? AND id=\?\)`, `INDEX \S+ \(kind=\? AND owner=\?\)`,
			`INDEX \S+ \(kind=\? AND owner=\? AND id>\?\)`,
		},
		"postgres": {
			testenv.Postgres(t), "ANALYZE state_records", "EXPLAIN (COSTS OFF) ",
			`Index Cond: \(\(\(kind\)::text = .* AND \(\(owner\)::text = .* AND \(\(id\)::text = `, `Index Cond: \(\(\(kind\)::text = .* AND \(\(owner\)::text = `,
			`Index Cond: \(\(\(kind\)::text = .* AND \(\(owner\)::text = .* AND \(\(id\)::text > `,
		},
		"mariadb": {
			testenv.MariaDB(t), "ANALYZE TABLE state_records", "EXPLAIN FORMAT=JSON ",
			`"key": "PRIMARY"[^}]*"rows": 1,`, `"key": "PRIMARY"[^}]*"rows": [1-9],`,
			`"key_length": "\d+",\s*"used_key_parts": \["kind", "owner", "id"\]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := sqldb.Open(t.Context(), sqldb.Config{URL: tt.url, Timeout: 2 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			if _, err := db.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			fillOwned(t, db, 1_000, 4)
			if rows, err := db.Query(t.Context(), tt.analyze); err != nil {
				t.Fatal(err)
			} else if err := rows.Close(); err != nil {
				t.Fatal(err)
			}
			q := New(db, time.Now).sql
			const key, owner = "'session', 'u500', 's1'", "'session', 'u500'"
			now := fmt.Sprint(time.Now().UnixMicro())
			for _, c := range []struct{ name, query, args, plan string }{
				{"get", q.get, key, tt.byKey},
				{"swap", q.swap, "'v', 2, " + now + ", " + key + ", 1", tt.byKey},
				{"replace", q.replace, "'v', 2, " + now + ", " + key, tt.byKey},
				{"take", q.take, key + ", 1", tt.byKey},
				{"delete", q.delete, key, tt.byKey},
				{"list", strings.Replace(q.list, "LIMIT ?", "LIMIT 100", 1), owner + ", 's0'", tt.page},
				{"delete owned", strings.Replace(q.deleteOwned, "LIMIT ?", "LIMIT 100", 1), owner, tt.byOwner},
			} {
				plan := explain(t, db, tt.explain, fill(c.query, c.args, now))
				if !regexp.MustCompile(c.plan).MatchString(plan) || strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "SCAN state_records") ||
					regexp.MustCompile(`(?i)sort|temp b-tree`).MatchString(plan) {
					t.Errorf("%s: %s\n%s", c.name, c.query, plan)
				}
			}
		})
	}
}

// fill puts values in the place of a statement's arguments, and the time in those
// that are left.
func fill(query, args, now string) string {
	for arg := range strings.SplitSeq(args, ", ") {
		query = strings.Replace(query, "?", arg, 1)
	}
	return strings.ReplaceAll(query, "?", now)
}

func explain(t *testing.T, db *sqldb.DB, explain, query string) string {
	t.Helper()
	lines, err := sqldb.All(t.Context(), db, func(scan sqldb.Scan) (line string, err error) {
		if db.Dialect() == sqldb.SQLite {
			var id, parent, unused int
			err = scan(&id, &parent, &unused, &line)
			return line, err
		}
		err = scan(&line)
		return line, err
	}, explain+query)
	if err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	return strings.Join(lines, "\n")
}

// fillOwned makes so many live records of each of so many owners.
func fillOwned(t *testing.T, db *sqldb.DB, owners, each int) {
	t.Helper()
	later := time.Now().Add(time.Hour).UnixMicro()
	for o := 0; o < owners; {
		var rows []string
		for ; o < owners && len(rows) < 2000; o++ {
			for i := range each {
				rows = append(rows, fmt.Sprintf("('session', 'u%d', 's%d', %d, '', 1)", o, i, later))
			}
		}
		if _, err := db.Exec(t.Context(), "INSERT INTO state_records (kind, owner, id, expires_at, value, version) VALUES "+strings.Join(rows, ", ")); err != nil {
			t.Fatal(err)
		}
	}
}
