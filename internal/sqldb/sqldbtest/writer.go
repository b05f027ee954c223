package sqldbtest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
)

// What follows is for tests in which an attacker writes the database.

// Columns are the columns of each table.
type Columns map[string][]string

// A Row of a table, by its columns.
type Row map[string]any

// Content is what is in the tables.
type Content map[string][]Row

// Schema returns all tables of a SQLite database.
func Schema(t testing.TB, db *sqldb.DB) Columns {
	t.Helper()
	rows, err := db.Query(t.Context(), `SELECT m.name, p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> 'schema_versions'`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	all := Columns{}
	for rows.Next() {
		var table, column string
		if err := rows.Scan(&table, &column); err != nil {
			t.Fatal(err)
		}
		all[table] = append(all[table], column)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// Only returns some of the tables.
func (c Columns) Only(t testing.TB, tables ...string) Columns {
	t.Helper()
	some := Columns{}
	for _, name := range tables {
		if c[name] == nil {
			t.Fatalf("there is no table %s", name)
		}
		some[name] = c[name]
	}
	return some
}

// Dump returns the content of the tables, ordered by the first column.
func Dump(t testing.TB, db *sqldb.DB, of Columns) Content {
	t.Helper()
	all := Content{}
	for table, columns := range of {
		rows, err := db.Query(t.Context(), "SELECT "+strings.Join(columns, ", ")+" FROM "+table+" ORDER BY 1")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			row := Row{}
			for i, c := range columns {
				row[c] = values[i]
			}
			all[table] = append(all[table], row)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
	}
	return all
}

// Load replaces the content of the tables. It fails if the database does not take it.
func Load(t testing.TB, db *sqldb.DB, of Columns, all Content) error {
	t.Helper()
	return db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
		for table, columns := range of {
			if _, err := q.Exec(ctx, "DELETE FROM "+table); err != nil {
				return err
			}
			for _, row := range all[table] {
				var args []any
				for _, c := range columns {
					args = append(args, row[c])
				}
				marks := strings.TrimSuffix(strings.Repeat("?, ", len(columns)), ", ")
				if _, err := q.Exec(ctx, "INSERT INTO "+table+" ("+strings.Join(columns, ", ")+") VALUES ("+marks+")", args...); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Clone returns a copy of the rows, too.
func (all Content) Clone() Content {
	copied := Content{}
	for table, rows := range all {
		for _, row := range rows {
			copied[table] = append(copied[table], maps.Clone(row))
		}
	}
	return copied
}

// A Change is one of what an attacker makes of a table: a column of a row has another value, a
// row is gone, or a row is there twice, or the table is as it was before.
type Change struct {
	Name   string
	Table  string
	Column string // the one that is changed; empty: it is another kind of change
	Row    int    // the row that is changed; -1: the whole table
	To     Content
}

// Changes are all changes of single columns, rows and tables. before is what was in the tables
// at an earlier time; its rows belong to those of now that have the same values in the column
// that key names of each table.
func Changes(of Columns, key map[string]string, before, now Content) (all []Change) {
	for _, table := range slices.Sorted(maps.Keys(of)) {
		columns := of[table]
		for i, row := range now[table] {
			var was Row
			for _, r := range before[table] {
				if same(r[key[table]], row[key[table]]) {
					was = r
				}
			}
			for _, column := range columns {
				values := changed(column, row, was, now[table])
				for _, how := range slices.Sorted(maps.Keys(values)) {
					to := now.Clone()
					to[table][i][column] = values[how]
					all = append(all, Change{fmt.Sprintf("%s.%s of row %d := %s", table, column, i, how), table, table + "." + column, i, to})
				}
				if again := now.Clone(); column == key[table] { // the row twice
					for _, value := range []any{"00000000-0000-4000-8000-000000000000", int64(1 << 40)} {
						twice := maps.Clone(row)
						twice[column] = value
						again[table] = append(slices.Clone(now[table]), twice)
						all = append(all, Change{fmt.Sprintf("%s: row %d as %v, too", table, i, value), table, "", i, again.Clone()})
					}
				}
			}
			gone := now.Clone()
			gone[table] = slices.Delete(gone[table], i, i+1)
			all = append(all, Change{fmt.Sprintf("%s: row %d is deleted", table, i), table, "", i, gone})
		}
		back, none := now.Clone(), now.Clone()
		back[table], none[table] = before[table], nil
		all = append(all, Change{table + " as before", table, "", -1, back}, Change{table + " is empty", table, "", -1, none})
	}
	return all
}

// changed are the values that an attacker gives to a column of a row.
func changed(column string, row, was Row, all []Row) map[string]any {
	values := map[string]any{
		"NULL": nil, "zero": int64(0), "negative": int64(-3), "one": int64(1), "text": "garbage", "empty": "",
		"lines": "x\nevent: head\ndata: {}\n\n", "bytes": make([]byte, 41), "huge": int64(1<<63 - 1), "a fraction": 1.5,
	}
	if n, ok := row[column].(int64); ok {
		const decade = int64(10 * 365 * 24 * time.Hour / time.Microsecond)
		values["one more"], values["one less"] = n+1, n-1
		values["a decade later"], values["a decade sooner"] = n+decade, n-decade
	}
	for i, other := range all {
		values[fmt.Sprint("that of row ", i)] = other[column]
	}
	if was != nil {
		values["that of before"] = was[column]
	}
	maps.DeleteFunc(values, func(_ string, v any) bool { return same(v, row[column]) })
	return values
}

// same reports whether a program reads the same from both.
func same(a, b any) bool {
	return a == nil && b == nil || a != nil && b != nil && fmt.Sprintf("%s", a) == fmt.Sprintf("%s", b)
}
