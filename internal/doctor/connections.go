package doctor

import (
	"context"
	"fmt"
	"strings"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

// A connectionLimit is one of the bounds that a server has for connections.
type connectionLimit struct {
	seen   string             // as a sentence, with what is taken off
	allows int                // what is left for the replicas
	raise  func(n int) string // the statement by which it allows the replicas n
}

// connectionNeeds are what a replica may open, and how many replicas there are.
type connectionNeeds struct {
	each, listens, replicas int
}

func (n connectionNeeds) all() int { return n.replicas * n.each }

func (n connectionNeeds) String() string {
	text := fmt.Sprintf("%d %s with database.max_connections %d", n.replicas, plural(n.replicas, "replica", "replicas"), n.each-n.listens)
	if n.listens > 0 {
		text += " and one more for notifications (LISTEN)"
	}
	return fmt.Sprintf("%s may open %d", text, n.all())
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// connectionNeeds returns what the live replicas may open; more is how many others are added.
func (d *Deployment) connectionNeeds(more int) connectionNeeds {
	live, answered := 0, 0
	if d.Cluster != nil {
		for _, r := range d.Cluster.Replicas {
			if r.Standing == cluster.Live {
				live++
			}
		}
	}
	for _, r := range d.Replicas {
		if r.Err == nil {
			answered++
		}
	}
	n := connectionNeeds{each: d.Config.Database.MaxConnections, replicas: max(1, live, answered) + more}
	if d.Config.Cluster.Enabled && d.DB.Dialect() == sqldb.Postgres && !d.DB.Pooled() {
		n.each, n.listens = n.each+1, 1
	}
	return n
}

// databaseConnections finds limits that are too low for the replicas that live now.
func databaseConnections(ctx context.Context, d *Deployment) ([]Finding, error) {
	return d.lackOfConnections(ctx, 0)
}

// databaseConnectionsUpdate finds those that are too low for one replica more.
func databaseConnectionsUpdate(ctx context.Context, d *Deployment) ([]Finding, error) {
	if now, err := d.lackOfConnections(ctx, 0); err != nil || len(now) > 0 {
		return nil, either(err, Skip("there are not enough now: see database-connections"))
	}
	return d.lackOfConnections(ctx, 1)
}

func either(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

func (d *Deployment) lackOfConnections(ctx context.Context, more int) (found []Finding, err error) {
	db, err := d.database(sqldb.Postgres, sqldb.MySQL)
	if err != nil {
		return nil, err
	}
	limits := mysqlLimits
	if db.Dialect() == sqldb.Postgres {
		limits = postgresLimits
	}
	list, err := limits(ctx, db)
	if err != nil {
		return nil, err
	}
	need := d.connectionNeeds(more)
	if db.Pooled() {
		return nil, Skip(fmt.Sprintf("a pooler stands between and does not say what it allows: max_client_conn of PgBouncer must be above %d (%d × %d, and one replica more during an update), and default_pool_size at most %d",
			need.all()+need.each*(1-more), need.replicas, need.each, list[0].allows))
	}
	room := d.connectionNeeds(1) // so that the mend lasts for an update, too
	for _, l := range list {
		if l.allows >= need.all() {
			continue
		}
		mend := l.raise(room.all())
		if fits := l.allows/room.replicas - room.listens; fits >= 1 {
			mend = fmt.Sprintf("set database.max_connections to %d on each replica, which leaves room for one more replica during an update, or: %s", fits, mend)
		}
		found = append(found, Finding{Seen: l.seen + "; " + need.String() + duringUpdate(more), Mend: mend})
	}
	return found, nil
}

func duringUpdate(more int) string {
	if more == 0 {
		return ""
	}
	return " while an update has started one and not yet stopped another"
}

// postgresLimits returns the limit of the server first.
func postgresLimits(ctx context.Context, db *sqldb.DB) ([]connectionLimit, error) {
	var most, reserved, others, ofRole, ofDatabase int
	var role, name string
	// All see the rows of pg_stat_activity, though not what they do. Only clients, and some
	// workers for moments, are in a database.
	err := db.QueryRow(ctx, `SELECT current_setting('max_connections')::int,
		(SELECT SUM(setting::int) FROM pg_settings WHERE name IN ('superuser_reserved_connections', 'reserved_connections')),
		(SELECT COUNT(*) FROM pg_stat_activity WHERE datname IS NOT NULL
			AND (datname IS DISTINCT FROM current_database() OR usename IS DISTINCT FROM current_user)),
		(SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),
		(SELECT datconnlimit FROM pg_database WHERE datname = current_database()),
		quote_ident(current_user), quote_ident(current_database())`).Scan(&most, &reserved, &others, &ofRole, &ofDatabase, &role, &name)
	if err != nil {
		return nil, err
	}
	list := []connectionLimit{{
		seen: fmt.Sprintf("max_connections of the server is %d, %d %s reserved for administrators, and %d %s in use by others",
			most, reserved, plural(reserved, "is", "are"), others, plural(others, "is", "are")),
		allows: most - reserved - others,
		raise: func(n int) string {
			return fmt.Sprintf("ALTER SYSTEM SET max_connections = %d, and restart PostgreSQL; or put PgBouncer between, in transaction mode", n+reserved+others)
		},
	}}
	if ofRole >= 0 {
		list = append(list, connectionLimit{fmt.Sprintf("the role %s may have %d connections", role, ofRole), ofRole,
			func(n int) string { return fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d", role, n) }})
	}
	if ofDatabase >= 0 {
		list = append(list, connectionLimit{fmt.Sprintf("the database %s may have %d connections", name, ofDatabase), ofDatabase,
			func(n int) string { return fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d", name, n) }})
	}
	return list, nil
}

func mysqlLimits(ctx context.Context, db *sqldb.DB) ([]connectionLimit, error) {
	var most, ofUser, ours, all int
	var user, status string
	// Without the right PROCESS, a user sees its own connections alone.
	err := db.QueryRow(ctx, `SELECT @@global.max_connections, @@session.max_user_connections, CURRENT_USER(),
		(SELECT COUNT(*) FROM information_schema.processlist WHERE user = SUBSTRING_INDEX(USER(), '@', 1) AND db = DATABASE())`).Scan(&most, &ofUser, &user, &ours)
	if err != nil {
		return nil, err
	}
	values, err := databaseTexts(ctx, db, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")
	if err != nil {
		return nil, err
	}
	for _, status = range values {
		if _, err := fmt.Sscan(status, &all); err != nil {
			return nil, err
		}
	}
	others := max(0, all-ours)
	list := []connectionLimit{{
		seen:   fmt.Sprintf("max_connections of the server is %d, and %d %s in use by others", most, others, plural(others, "is", "are")),
		allows: most - others,
		raise:  func(n int) string { return setGlobal("max_connections", fmt.Sprint(n+others)) },
	}}
	if ofUser > 0 {
		list = append(list, connectionLimit{fmt.Sprintf("the user %s may have %d connections (max_user_connections)", user, ofUser), ofUser,
			func(n int) string {
				return fmt.Sprintf("ALTER USER %s WITH MAX_USER_CONNECTIONS %d; if it has none of its own, %s", mysqlAccount(user), n, setGlobal("max_user_connections", fmt.Sprint(n)))
			}})
	}
	return list, nil
}

// mysqlAccount quotes what CURRENT_USER() returns.
func mysqlAccount(user string) string {
	at := strings.LastIndexByte(user, '@')
	quote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	return quote(user[:at]) + "@" + quote(user[at+1:])
}
