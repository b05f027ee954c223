package sqlstate

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// queries are the statements in one dialect. {ms} and {µs} stand for the clock: the time
// in microseconds, truncated to milliseconds for records. Each takes the argument
// nowMillis or nowMicros in its place. {bound} ends the condition of statements that
// write records; see bound.
type queries struct {
	get, getWithOwner, put, create, replace, swap, take, delete string
	list, deleteOwned                                           string
	count, rate, shorten, reset                                 string
	sweepRecords, sweepRates                                    string
}

const oneRecord = " WHERE kind = ? AND owner = ? AND id = ?"

func newQueries(d sqldb.Dialect, lockTimeout time.Duration) queries {
	insert := insertRecord(d)
	q := queries{
		get: "SELECT kind, owner, id, value, version, expires_at FROM state_records" + oneRecord + " AND expires_at > {ms}",
		getWithOwner: sqlstore.SelectWithOwner("r.kind, r.owner, r.id, r.value, r.version, r.expires_at", "'', '', '', '', 0, 0",
			"state_records r", "r.owner", "r.kind = ? AND r.owner = ? AND r.id = ? AND r.expires_at > {ms}"),
		put:         insert,
		create:      insert,
		replace:     "UPDATE state_records SET value = ?, version = ?, expires_at = {ms} + ?" + oneRecord + " AND expires_at <= {ms}{bound}",
		swap:        "UPDATE state_records SET value = ?, version = ?, expires_at = {ms} + ?" + oneRecord + " AND version = ? AND expires_at > {ms}{bound}",
		take:        "DELETE FROM state_records" + oneRecord + " AND version = ?{bound}",
		delete:      "DELETE FROM state_records" + oneRecord + "{bound}",
		list:        "SELECT kind, owner, id, value, version, expires_at FROM state_records WHERE kind = ? AND owner = ? AND id > ? AND expires_at > {ms} ORDER BY id LIMIT ?",
		deleteOwned: deleteOwned(d),
		rate: "SELECT {µs}, r.tat FROM (SELECT 1 AS one) AS d LEFT JOIN state_rates AS r" +
			" ON r.kind = ? AND r.owner = ? AND r.id = ?",
		count:        count(d),
		shorten:      "UPDATE state_rates SET tat = ?, expires_at = ?" + oneRecord + " AND tat = ?",
		reset:        "DELETE FROM state_rates" + oneRecord + "{bound}",
		sweepRecords: sweep(d, "state_records"),
		sweepRates:   sweep(d, "state_rates"),
	}
	if d == sqldb.MySQL {
		// Both MySQL 8 and MariaDB accept VALUES().
		q.put += " ON DUPLICATE KEY UPDATE value = VALUES(value), version = VALUES(version), expires_at = VALUES(expires_at)"
	} else {
		set := " ON CONFLICT (kind, owner, id) DO UPDATE SET value = excluded.value, version = excluded.version, expires_at = excluded.expires_at"
		q.put += set
		q.create += set + " WHERE state_records.expires_at <= {ms}"
	}
	millis, micros := clock(d)
	begin := strings.Replace(millis, "clock_timestamp", "statement_timestamp", 1) // PostgreSQL's; the others' stands still
	replace := strings.NewReplacer("{ms}", millis, "{µs}", micros, "{begin}", begin, "{bound}", bound(d, lockTimeout))
	for _, query := range []*string{
		&q.get, &q.getWithOwner, &q.put, &q.create, &q.replace, &q.swap, &q.take, &q.delete, &q.list, &q.deleteOwned,
		&q.count, &q.rate, &q.reset, &q.sweepRecords, &q.sweepRates,
	} {
		*query = replace.Replace(*query)
	}
	return q
}

func insertRecord(d sqldb.Dialect) string {
	insert := "INSERT INTO state_records (kind, owner, id, value, version, expires_at) "
	if d == sqldb.Postgres {
		return insert + "SELECT ?, ?, ?, ?, ?, {ms} + ? WHERE true{bound}"
	}
	return insert + "VALUES (?, ?, ?, ?, ?, {ms} + ?)"
}

// bound is a condition that always holds. On PostgreSQL it sets how long the statement
// may wait for locks. It is evaluated before the row is locked, and its effect ends with
// the transaction, so that it is right behind PgBouncer, too. So a caller that gives up a
// write knows when the write can no longer be done.
func bound(d sqldb.Dialect, lockTimeout time.Duration) string {
	if d != sqldb.Postgres {
		return "" // on MySQL each connection sets it; on SQLite callers wait in this process
	}
	return fmt.Sprintf(" AND set_config('lock_timeout', '%d', true) IS NOT NULL", lockTimeout.Milliseconds())
}

// count is the twin of state.Rate.Decide: one statement, in which the row is locked, counts an
// event if it is allowed. Its arguments are those of countArgs. Its number (sqldb's
// ExecReturning) is how full the bucket is then. An event that is not allowed matches no row;
// on MySQL, the number is twice how full the bucket is, and 1 more if the event was
// allowed, or zero if it was the first one.
//
// A caller may have waited for the lock. On PostgreSQL the clock is read after that. Elsewhere
// it is that of the beginning: the event is counted for the moment at which it came, and so
// no more events are allowed than the rate says.
func count(d sqldb.Dialect) string {
	const into = "INSERT INTO state_rates (kind, owner, id, tat, expires_at) "
	switch d {
	case sqldb.MySQL: // sets one column after the other
		return into + "VALUES (?, ?, ?, {µs} + ?, {µs} + ?) ON DUPLICATE KEY UPDATE" +
			" expires_at = IF(tat <= {µs} + ?, GREATEST(tat, {µs}) + ?, tat)," +
			" tat = expires_at + 0 * LAST_INSERT_ID(2 * LEAST(expires_at - {µs}, ?) + (expires_at > tat))"
	case sqldb.Postgres:
		return into + "SELECT ?, ?, ?, {µs} + ?, {µs} + ? WHERE true{bound}" +
			" ON CONFLICT (kind, owner, id) DO UPDATE SET tat = GREATEST(state_rates.tat, {µs}) + ?," +
			" expires_at = GREATEST(state_rates.tat, {µs}) + ? WHERE state_rates.tat <= {µs} + ? RETURNING tat - {µs}"
	default:
		return into + "VALUES (?, ?, ?, {µs} + ?, {µs} + ?)" +
			" ON CONFLICT (kind, owner, id) DO UPDATE SET tat = MAX(state_rates.tat, {µs}) + ?," +
			" expires_at = MAX(state_rates.tat, {µs}) + ? WHERE state_rates.tat <= {µs} + ? RETURNING tat - {µs}"
	}
}

func countArgs(d sqldb.Dialect, key state.Key, rate state.Rate) []any {
	one, room := rate.Interval(), rate.Full()-rate.Interval()
	args := []any{key.Kind, key.Owner, key.ID, nowMicros, one, nowMicros, one}
	if d == sqldb.MySQL {
		return append(args, nowMicros, room, nowMicros, one, nowMicros, rate.Full())
	}
	return append(args, nowMicros, one, nowMicros, one, nowMicros, room, nowMicros)
}

// sweep deletes the rows that expired first. It finds each by its place in the table: by its
// key, PostgreSQL without statistics, as in a flood of new addresses, would read the whole table
// for each batch. The condition is repeated outside the subquery: PostgreSQL evaluates it
// again for a row that was just written anew, and so leaves that row alone. {begin} is the
// clock when the statement began: it does not change meanwhile, so that the index can be
// searched for it.
func sweep(d sqldb.Dialect, table string) string {
	first := " FROM " + table + " WHERE expires_at <= {begin} ORDER BY expires_at LIMIT ?"
	switch d {
	case sqldb.MySQL:
		return "DELETE" + first
	case sqldb.Postgres:
		return "DELETE FROM " + table + " WHERE expires_at <= {begin} AND ctid = ANY (ARRAY(SELECT ctid" + first + "))"
	default:
		return "DELETE FROM " + table + " WHERE expires_at <= {begin} AND rowid IN (SELECT rowid" + first + ")"
	}
}

// deleteOwned deletes some of an owner's records of one kind. Which ones does not matter;
// in the order of the primary key two callers do not lock each other out.
func deleteOwned(d sqldb.Dialect) string {
	const some = " WHERE kind = ? AND owner = ? AND expires_at > {ms}"
	if d == sqldb.MySQL {
		return "DELETE FROM state_records" + some + " ORDER BY kind, owner, id LIMIT ?"
	}
	return "DELETE FROM state_records WHERE (kind, owner, id) IN" +
		" (SELECT kind, owner, id FROM state_records" + some + " ORDER BY id LIMIT ?){bound}"
}

// clock returns expressions for the server's time in microseconds since 1970, truncated
// to milliseconds and exact. On SQLite each is a parameter.
func clock(d sqldb.Dialect) (millis, micros string) {
	switch d {
	case sqldb.Postgres:
		return "CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS BIGINT) * 1000",
			"CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
	case sqldb.MySQL: // UTC: local times come twice when summer ends
		return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3))",
			"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
	default:
		return "?", "?"
	}
}

// A tick is an argument that stands for the clock.
type tick int

const (
	nowMillis tick = iota
	nowMicros
)

// args replaces the ticks by the time on SQLite, and removes them where the statement
// uses the server's clock.
func (s *Store) args(list ...any) []any {
	args := make([]any, 0, len(list))
	for _, a := range list {
		switch {
		case a != nowMillis && a != nowMicros:
			args = append(args, a)
		case s.db.Dialect() != sqldb.SQLite:
		case a == nowMillis:
			args = append(args, s.now().UnixMilli()*1000)
		default:
			args = append(args, s.now().UnixMicro())
		}
	}
	return args
}

func readRecord(scan sqldb.Scan) (state.Record, error) {
	var (
		r       state.Record
		expires int64
	)
	err := scan(&r.Key.Kind, &r.Key.Owner, &r.Key.ID, &r.Value, &r.Version, &expires)
	r.Expires = time.UnixMicro(expires).UTC()
	return r, err
}

// lifetime is ttl in microseconds, truncated to milliseconds.
func lifetime(ttl time.Duration) int64 { return ttl.Milliseconds() * 1000 }

// blob returns value, or an empty slice for nil, which would be NULL.
func blob(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

// unavailable wraps an error of the database in state.ErrUnavailable; nil stays nil.
func unavailable(err error) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, sqldb.ErrFull):
		err = fmt.Errorf("%w: %w", state.ErrFull, err)
	case errors.Is(err, sqldb.ErrReadOnly):
		err = fmt.Errorf("%w: %w", state.ErrReadOnly, err)
	}
	return state.ErrUnavailable.Because(err)
}
