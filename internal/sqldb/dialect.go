package sqldb

import (
	"fmt"
	"strconv"
	"strings"
)

// A Dialect is one of the three kinds of SQL. Its methods return the parts of
// statements that differ between them.
type Dialect int

const (
	SQLite   Dialect = iota
	Postgres         // also behind PgBouncer
	MySQL            // also MariaDB
)

// String is the name that metrics, logs and errors use.
func (d Dialect) String() string {
	return [...]string{"sqlite", "postgres", "mysql"}[d]
}

// ForUpdate ends a SELECT whose rows the transaction will change. It locks them, so that
// two transactions queue up and none is refused later. SQLite has one writer at a time
// and needs no lock.
func (d Dialect) ForUpdate() string {
	if d == SQLite {
		return ""
	}
	return " FOR UPDATE"
}

// Now is an expression for the time of the database's clock, as a column holds it.
func (d Dialect) Now() string {
	return [...]string{
		"CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
		"CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
		"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))",
	}[d]
}

// Using follows the table of a SELECT that reads in the order of an index whose first
// column is fixed, and begins or ends inside: MySQL and MariaDB may compare the first
// column alone, read the rows before the beginning, and read on after the end.
func (d Dialect) Using(index string) string {
	if d == MySQL {
		return " FORCE INDEX (" + index + ")"
	}
	return ""
}

// Upsert inserts a row or, when one with the same key columns is there, sets its
// other columns. The parameters are the keys, then the others. Keys must be the
// table's primary key, and the table may have no other unique columns.
func (d Dialect) Upsert(table string, keys, others []string) string {
	insert := insertInto(table, keys, others)
	sets := make([]string, len(others))
	for i, c := range others {
		if d == MySQL {
			// VALUES() is deprecated in MySQL 8 in favour of a row alias, which
			// MariaDB does not know; both take this.
			sets[i] = fmt.Sprintf("%s = VALUES(%s)", c, c)
		} else {
			sets[i] = fmt.Sprintf("%s = excluded.%s", c, c)
		}
	}
	if d == MySQL {
		return insert + " ON DUPLICATE KEY UPDATE " + strings.Join(sets, ", ")
	}
	return insert + " ON CONFLICT (" + strings.Join(keys, ", ") + ") DO UPDATE SET " + strings.Join(sets, ", ")
}

// InsertIfAbsent inserts a row unless one with the same key columns is there; that one
// stays as it is. The parameters are those of Upsert. The count of affected rows does
// not tell the two cases apart.
func (d Dialect) InsertIfAbsent(table string, keys, others []string) string {
	insert := insertInto(table, keys, others)
	if d == MySQL {
		// INSERT IGNORE would swallow other errors, too.
		return insert + fmt.Sprintf(" ON DUPLICATE KEY UPDATE %s = %s.%s", keys[0], table, keys[0])
	}
	return insert + " ON CONFLICT (" + strings.Join(keys, ", ") + ") DO NOTHING"
}

// DeleteSome deletes the first rows, in the order of a column, for which a condition
// holds. The last parameter is the greatest number of rows. The key is the primary key:
// one column, or several with commas.
func (d Dialect) DeleteSome(table, key, where, order string) string {
	if d == MySQL {
		return fmt.Sprintf("DELETE FROM %s WHERE %s ORDER BY %s LIMIT ?", table, where, order)
	}
	return fmt.Sprintf("DELETE FROM %s WHERE (%s) IN (SELECT %s FROM %s WHERE %s ORDER BY %s LIMIT ?)",
		table, key, key, table, where, order)
}

// rebind writes the parameters in the dialect's form. A ? inside quotes stays.
func (d Dialect) rebind(query string) string {
	if d != Postgres || !strings.Contains(query, "?") {
		return query
	}
	var b strings.Builder
	b.Grow(len(query) + 16)
	quoted, n := false, 0
	for i := range len(query) {
		switch c := query[i]; {
		case c == '\'':
			quoted = !quoted
			b.WriteByte(c)
		case c == '?' && !quoted:
			n++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func insertInto(table string, keys, others []string) string {
	columns := append(append([]string{}, keys...), others...)
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES (?%s)", table,
		strings.Join(columns, ", "), strings.Repeat(", ?", len(columns)-1))
}
