package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// many is how many users there are: a million if WATCHWORD_SOAK is in the environment.
var many = func() int {
	if os.Getenv("WATCHWORD_SOAK") != "" {
		return 1_000_000
	}
	return 100_000
}()

// TestMany holds every operation to reading little more than what it returns, while the
// tables hold many users, all of them in one group.
func TestMany(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "watchword.db")
		db := migrated(t, "sqlite:"+path)
		// By SQLite's own program: under the race detector the driver would need minutes.
		load := exec.CommandContext(t.Context(), "sqlite3", "-bail", path)
		load.Stdin = strings.NewReader("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000; BEGIN;\n" +
			rows("(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < ?) SELECT n FROM s)", "printf('%08d', n)") +
			"COMMIT;")
		if out, err := load.CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("%s %v", out, err)
		}
		everyOperation(t, db, func(t *testing.T, q sqldb.Q, query string, args []any, most int) {
			sqlitePlan(t, q, query, args)
			sqliteSteps(t, path, query, args, most)
		})
		wholeTrail(t, db)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		url := testenv.Postgres(t)
		db := migrated(t, url)
		fill(t, "pgx", url, "BEGIN; SET LOCAL session_replication_role = replica;\n"+
			rows("generate_series(1, ?) AS s(n)", "lpad(CAST(n AS TEXT), 8, '0')")+"COMMIT; ANALYZE")
		everyOperation(t, db, postgresPlan)
		wholeTrail(t, db)
	})
	t.Run("mariadb", func(t *testing.T) {
		t.Parallel()
		mariadb := testenv.MariaDB(t)
		db := migrated(t, mariadb)
		u, err := url.Parse(mariadb)
		if err != nil {
			t.Fatal(err)
		}
		fill(t, "mysql", fmt.Sprintf("%s@tcp(%s)%s?multiStatements=true", u.User, u.Host, u.Path),
			"SET sql_mode = 'PIPES_AS_CONCAT', foreign_key_checks = 0, unique_checks = 0, max_recursive_iterations = 2000000;\n"+
				rows("(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < ?) SELECT n FROM s) AS s", "lpad(n, 8, '0')")+
				"ANALYZE TABLE users, memberships, usergroups, claims, group_claims, identity_marks, factors, revocations, audit_events")
		everyOperation(t, db, nil)
		wholeTrail(t, db)
	})
}

func migrated(t *testing.T, url string) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: url, AcquireTimeout: time.Minute, Timeout: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

func fill(t *testing.T, driver, dsn, script string) {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), script); err != nil {
		t.Fatal(err)
	}
}

// rows makes the tables: everyone is in the group "all", one user in "admins",
// twenty who are disabled in "left", and a fiftieth in two others. Each group
// gives a claim of its own name. The series yields n up to ?; digits are n's.
func rows(series, digits string) string {
	from := func(n int) string { return " FROM " + strings.Replace(series, "?", fmt.Sprint(n), 1) }
	id := "'019' || " + digits + " || '-0000-7000-8000-000000000000'"
	name := "'user' || " + digits
	all := []string{
		"users (id, username, name_key, email, first_name, last_name, password_hash, disabled, epoch, session_epoch, created_at, updated_at, version)" +
			" SELECT " + id + ", " + name + ", " + name + ", '', '', '', '', CASE WHEN n % " + fmt.Sprint(many/20) + " = 2 THEN 1 ELSE 0 END, 1, 1, 0, 0, 1" + from(many),
		"usergroups (id, name, name_key, created_at, updated_at, version) SELECT 'g' || n, 'g' || n, 'g' || n, 0, 0, 1" + from(2),
		"usergroups (id, name, name_key, created_at, updated_at, version) VALUES ('all', 'all', 'all', 0, 0, 1), ('admins', 'admins', 'admins', 0, 0, 1), ('left', 'left', 'left', 0, 0, 1)",
		"claims (id, name, name_key, short_name, held_value, created_at, updated_at, version) SELECT id, id, id, id, 'r', 0, 0, 1 FROM usergroups",
		"group_claims (group_id, claim_id) SELECT id, id FROM usergroups",
		"memberships (user_id, group_id, user_key) SELECT " + id + ", 'all', " + name + from(many),
		"memberships (user_id, group_id, user_key) SELECT " + id + ", 'admins', " + name + from(1),
		"memberships (user_id, group_id, user_key) SELECT id, 'left', name_key FROM users WHERE disabled = 1",
		"memberships (user_id, group_id, user_key) SELECT u.id, g.id, u.name_key FROM users u JOIN usergroups g ON g.id LIKE 'g%' WHERE u.name_key <= '" + userName(many/50) + "'",
		"identity_marks (digest, kind, user_id, until_at) SELECT 'd' || " + digits + ", 'email', " + id + ", CASE WHEN n % 10 = 0 THEN n ELSE 0 END" + from(many/10),
		"factors (id, user_id, kind, digest, data, created_at, version) SELECT 'f' || " + digits + ", " + id + ", 'passkey', 'd' || " + digits + ", 'sealed', 0, 1" + from(many/10),
		"factors (id, user_id, kind, digest, data, created_at, version) SELECT 't' || " + digits + ", " + id + ", 'totp', 'd' || " + digits + ", 'sealed', 0, 1" + from(many/50),
		"revocations (seq, kind, subject, epoch, issued_before, expires_at, created_at, actor, reason)" +
			" SELECT n, 'jti', 'j' || n, 0, 0, n, 0, '', 'logout'" + from(many/10),
		"audit_events (id, at_time, actor, action, target, outcome, address, detail)" +
			" SELECT 'e' || " + digits + ", n, 'u' || (n % " + fmt.Sprint(many/1000) + "), 'login', 't' || (n % " + fmt.Sprint(many/1000) + "), 'ok', '', ''" + from(trail),
		// Half of them are one actor's, a quarter about one target; few have another outcome.
		"audit_events (id, at_time, actor, action, target, outcome, address, detail)" +
			" SELECT 'f' || " + digits + ", n, 'busy', 'read', CASE WHEN n % 2 = 0 THEN 'looked at' ELSE 't' || n END," +
			" CASE WHEN n % " + fmt.Sprint(trail/10) + " = 1 THEN 'denied' ELSE 'ok' END, '', ''" + from(trail),
	}
	return "INSERT INTO " + strings.Join(all, ";\nINSERT INTO ") + ";\nUPDATE revocation_head SET seq = " + fmt.Sprint(many/10) + ";\n"
}

// trail is how many events half of the audit trail has, many more than a page may look
// at.
const trail = 3 * store.AuditScan

// userName is the name of the nth user.
func userName(n int) string { return fmt.Sprintf("user%08d", n) }

// refusal is the id of the nth refusal in the trail.
func refusal(n int) string { return fmt.Sprintf("f%08d", (n-1)*trail/10+1) }

// most is how many rows an operation may look at. Each returns 20 at most, and the
// user in question is in 3 groups. What looks through the trail may look at more.
const most = 100

// everyOperation runs every operation whose cost could depend on the size of a
// table, and rolls it back.
func everyOperation(t *testing.T, db *sqldb.DB, plan func(t *testing.T, q sqldb.Q, query string, args []any, most int)) {
	id, name := fmt.Sprintf("019%08d-0000-7000-8000-000000000000", many/100), userName(many/100)
	page := store.Page{After: userName(many * 9 / 10), Limit: 20}
	search := store.Page{Prefix: fmt.Sprintf("user%05d", many*7/10_000), Limit: 20} // a thousand
	nobody := store.Page{Prefix: "zz", Limit: 20}
	now, last := time.UnixMicro(50), int64(many/10)
	want := func(t *testing.T, n int) func(any, error) error {
		return func(list any, err error) error {
			if got := count(list); err == nil && got != n {
				t.Errorf("%d records, want %d", got, n)
			}
			return err
		}
	}
	holds := func(t *testing.T, r records, claim string, want bool) error {
		got, err := r.AnyoneHolds(t.Context(), claim, "r")
		if err == nil && got != want {
			t.Errorf("anyone holds %s: %v", claim, got)
		}
		return err
	}
	for what, operation := range map[string]func(t *testing.T, ctx context.Context, r records) error{
		"login": func(t *testing.T, ctx context.Context, r records) error { return second(r.UserByName(ctx, name)) },
		"login by name": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 1)(r.UsersNamed(ctx, name, "email", "none"))
		},
		"login by another spelling": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 1)(r.UsersNamed(ctx, "none", "email", "d00000007"))
		},
		"user":      func(t *testing.T, ctx context.Context, r records) error { return second(r.User(ctx, id)) },
		"list":      func(t *testing.T, ctx context.Context, r records) error { return want(t, 20)(r.Users(ctx, page)) },
		"search":    func(t *testing.T, ctx context.Context, r records) error { return want(t, 20)(r.Users(ctx, search)) },
		"no result": func(t *testing.T, ctx context.Context, r records) error { return want(t, 0)(r.Users(ctx, nobody)) },
		"list, backwards": func(t *testing.T, ctx context.Context, r records) error {
			page := page
			page.Descending = true
			return want(t, 20)(r.Users(ctx, page))
		},
		"list, from the end": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.Users(ctx, store.Page{Descending: true, Limit: 20}))
		},
		"search, backwards": func(t *testing.T, ctx context.Context, r records) error {
			search := search
			search.Descending = true
			return want(t, 20)(r.Users(ctx, search))
		},
		"search, before": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.Users(ctx, store.Page{Prefix: "user", After: userName(many / 2), Descending: true, Limit: 20}))
		},
		"no result, backwards": func(t *testing.T, ctx context.Context, r records) error {
			nobody := nobody
			nobody.Descending = true
			return want(t, 0)(r.Users(ctx, nobody))
		},
		"nobody, by e-mail address": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 0)(r.UsersNamed(ctx, "", "email", "none"))
		},
		"users with ids": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 2)(r.UsersWithIDs(ctx, []string{id, "none", fmt.Sprintf("019%08d-0000-7000-8000-000000000000", many/100+1), id}))
		},
		"groups of users": func(t *testing.T, ctx context.Context, r records) error {
			groups, err := r.GroupsOfUsers(ctx, []string{id, fmt.Sprintf("019%08d-0000-7000-8000-000000000000", many/100+1)})
			if len(groups) != 2 || len(groups[id]) != 3 {
				t.Errorf("%v", groups)
			}
			return err
		},
		"grants of a user": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 3)(r.GrantsOfUser(ctx, id))
		},
		"groups of a user": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 3)(r.GroupsOfUser(ctx, id))
		},
		"claims of a user": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 3)(r.ClaimsOfUser(ctx, id))
		},
		"user with claims": func(t *testing.T, ctx context.Context, r records) error {
			_, claims, err := r.UserWithClaims(ctx, id)
			return want(t, 3)(claims, err)
		},
		"user with claims, beside a row": func(t *testing.T, ctx context.Context, r records) error {
			read := func(scan sqldb.Scan) (bool, error) {
				var kind, value string
				err := scan(&kind, &value)
				return kind != "", err
			}
			query := SelectWithOwner("r.kind, r.value", "'', ''", "state_records r", "r.owner", "r.kind = ? AND r.owner = ? AND r.id = ?")
			return second(ReadWithOwner(ctx, r.q, read, query, "session", id, "s", id))
		},
		"members": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.MembersOfGroup(ctx, "all", page))
		},
		"members, backwards": func(t *testing.T, ctx context.Context, r records) error {
			page := page
			page.Descending = true
			return want(t, 20)(r.MembersOfGroup(ctx, "all", page))
		},
		"members, searched backwards": func(t *testing.T, ctx context.Context, r records) error {
			search := search
			search.Descending = true
			return want(t, 20)(r.MembersOfGroup(ctx, "all", search))
		},
		"members, from the end": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.MembersOfGroup(ctx, "all", store.Page{Descending: true, Limit: 20}))
		},
		"members, searched": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.MembersOfGroup(ctx, "all", search))
		},
		"members of a small group": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 1)(r.MembersOfGroup(ctx, "admins", store.Page{Limit: 20}))
		},
		"everyone holds any": func(t *testing.T, ctx context.Context, r records) error { return second(r.AnyoneHoldsAny(ctx, "all")) },
		"nobody holds any":   func(t *testing.T, ctx context.Context, r records) error { return second(r.AnyoneHoldsAny(ctx, "left")) },
		"everyone holds":     func(t *testing.T, ctx context.Context, r records) error { return holds(t, r, "all", true) },
		"one holds":          func(t *testing.T, ctx context.Context, r records) error { return holds(t, r, "admins", true) },
		"who left hold":      func(t *testing.T, ctx context.Context, r records) error { return holds(t, r, "left", false) },
		"nobody holds":       func(t *testing.T, ctx context.Context, r records) error { return holds(t, r, "none", false) },
		"group with name":    func(t *testing.T, ctx context.Context, r records) error { return second(r.GroupByName(ctx, "g2")) },
		"mark of nobody": func(t *testing.T, ctx context.Context, r records) error {
			if _, err := r.TakenMark(ctx, "email", "none", id, now); err != store.ErrNotFound {
				return err
			}
			return nil
		},
		"mark": func(t *testing.T, ctx context.Context, r records) error {
			m, err := r.TakenMark(ctx, "email", "d00000007", id, now)
			if err == nil && m.UserID == "" {
				t.Error("nobody has the mark")
			}
			return err
		},
		"marks of a user": func(t *testing.T, ctx context.Context, r records) error {
			return second(r.MarksOfUser(ctx, "01900000007-0000-7000-8000-000000000000"))
		},
		"claims of users with a mark": func(t *testing.T, ctx context.Context, r records) error {
			return second(r.ClaimsOfMarked(ctx, "d00000007", id))
		},
		"new mark": func(t *testing.T, ctx context.Context, r records) error {
			return r.PutMark(ctx, store.Mark{Kind: "email", Digest: "new", UserID: id})
		},
		"sweep of marks": func(t *testing.T, ctx context.Context, r records) error {
			return second(r.DeleteExpiredMarks(ctx, now, 20))
		},
		"factors of a user": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 2)(r.FactorsOfUser(ctx, id))
		},
		"factors of a user without": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 0)(r.FactorsOfUser(ctx, fmt.Sprintf("019%08d-0000-7000-8000-000000000000", many/2)))
		},
		"factor": func(t *testing.T, ctx context.Context, r records) error {
			return second(r.FactorByDigest(ctx, "passkey", "d00000007"))
		},
		"all factors": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.Factors(ctx, "f00000007", 20))
		},
		"new factor": func(t *testing.T, ctx context.Context, r records) error {
			return r.CreateFactor(ctx, store.Factor{ID: "new", UserID: id, Kind: "passkey", Digest: "new", Data: []byte("sealed")})
		},
		"spent factor": func(t *testing.T, ctx context.Context, r records) error {
			return r.UpdateFactor(ctx, store.Factor{ID: "f00000007", Data: []byte("again"), Version: 1})
		},
		"no more factor": func(t *testing.T, ctx context.Context, r records) error {
			return r.DeleteFactor(ctx, "f00000007")
		},
		"create": func(t *testing.T, ctx context.Context, r records) error {
			return r.CreateUser(ctx, store.User{ID: "new", NameKey: "new"})
		},
		"rename": func(t *testing.T, ctx context.Context, r records) error {
			return r.UpdateUser(ctx, store.User{ID: id, NameKey: "renamed", Version: 1})
		},
		"epoch":  func(t *testing.T, ctx context.Context, r records) error { return second(r.NextEpoch(ctx, id, true)) },
		"delete": func(t *testing.T, ctx context.Context, r records) error { return r.DeleteUser(ctx, id) },
		"join":   func(t *testing.T, ctx context.Context, r records) error { return r.AddMember(ctx, id, "left") },
		"leave":  func(t *testing.T, ctx context.Context, r records) error { return r.RemoveMember(ctx, id, "all") },
		"tail of the log": func(t *testing.T, ctx context.Context, r records) error {
			revs, _, err := r.RevocationsAfter(ctx, last-10, 20)
			return want(t, 10)(revs, err)
		},
		"end of the log": func(t *testing.T, ctx context.Context, r records) error {
			revs, _, err := r.RevocationsAfter(ctx, last, 20)
			return want(t, 0)(revs, err)
		},
		"middle of the log": func(t *testing.T, ctx context.Context, r records) error {
			revs, _, err := r.RevocationsAfter(ctx, last/2, 20)
			return want(t, 20)(revs, err)
		},
		"newest of the log": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.RevocationsBefore(ctx, 0, 20))
		},
		"older ones of the log": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.RevocationsBefore(ctx, last/2, 20))
		},
		"append to the log": func(t *testing.T, ctx context.Context, r records) error {
			return second(r.AppendRevocation(ctx, store.Revocation{Kind: "jti"}))
		},
		"sweep of the log": func(t *testing.T, ctx context.Context, r records) error {
			return second(r.DeleteExpiredRevocations(ctx, now, 20))
		},
		"trail": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.AuditEvents(ctx, store.AuditQuery{Before: fmt.Sprintf("e%08d", many/20), Limit: 20}))
		},
		"trail of one": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.AuditEvents(ctx, store.AuditQuery{Actor: "u7", Limit: 20}))
		},
		"trail of a target": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.AuditEvents(ctx, store.AuditQuery{Target: "t7", Limit: 20}))
		},
		"trail of a busy one": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.AuditEvents(ctx, store.AuditQuery{Actor: "busy", Limit: 20}))
		},
		"trail of a busy one, before": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 20)(r.AuditEvents(ctx, store.AuditQuery{Actor: "busy", Before: refusal(4), Limit: 20}))
		},
		"trail of a busy target, after": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 1)(r.AuditEvents(ctx, store.AuditQuery{Target: "looked at", Before: refusal(4), After: refusal(4)[:8], Limit: 20}))
		},
		"look through the trail for an action": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 0)(r.AuditEvents(ctx, store.AuditQuery{Action: "none", Limit: 20}))
		},
		"look through the trail for refusals": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 4)(r.AuditEvents(ctx, store.AuditQuery{Outcome: "denied", Before: refusal(5) + "0", Limit: 20}))
		},
		"look through the trail for an address": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 0)(r.AuditEvents(ctx, store.AuditQuery{Address: "192.0.2.1", Limit: 20}))
		},
		"look through the trail of one": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 2)(r.AuditEvents(ctx, store.AuditQuery{Actor: "busy", Outcome: "denied", Limit: 2}))
		},
		"look through the trail of a busy target": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 0)(r.AuditEvents(ctx, store.AuditQuery{Target: "looked at", Actor: "u7", Limit: 20}))
		},
		"look through the trail of a target for a busy actor": func(t *testing.T, ctx context.Context, r records) error {
			return want(t, 1)(r.AuditEvents(ctx, store.AuditQuery{Target: "t7", Actor: "busy", Limit: 20}))
		},
		"sweep of the trail": func(t *testing.T, ctx context.Context, r records) error {
			return second(r.DeleteAuditBefore(ctx, now, 20))
		},
	} {
		most := most
		if strings.HasPrefix(what, "look through") {
			most = 4 * store.AuditScan
		}
		t.Run(what, func(t *testing.T) {
			done := errors.New("rolled back")
			err := db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
				if db.Dialect() == sqldb.MySQL {
					var plans []func()
					before := mysqlReads(t, q)
					err := operation(t, ctx, within(watched{q, func(query string, args []any) {
						plans = append(plans, func() { mysqlPlan(t, q, query, args, most) })
					}}))
					if err != nil {
						return err
					}
					// Reading the counters counts, too, but less than 20.
					if n := mysqlReads(t, q) - before; n > most {
						t.Errorf("%d rows are read", n)
					}
					for _, plan := range plans {
						plan()
					}
				} else if err := operation(t, ctx, within(watched{q, func(query string, args []any) { plan(t, q, query, args, most) }})); err != nil {
					return err
				}
				return done
			})
			if err != done {
				t.Error(err)
			}
		})
	}
}

// wholeTrail finds what is rare in the trail, each event once, over pages most of which
// are empty.
func wholeTrail(t *testing.T, db *sqldb.DB) {
	for what, c := range map[string]struct {
		query store.AuditQuery
		want  int
	}{
		"refusals":        {store.AuditQuery{Outcome: "denied"}, 10},
		"refusals of one": {store.AuditQuery{Actor: "busy", Outcome: "denied"}, 10},
		"an action":       {store.AuditQuery{Action: "login", Target: "t7"}, trail / (many / 1000)},
		"nothing":         {store.AuditQuery{Action: "none"}, 0},
	} {
		began, found, asked := time.Now(), map[string]bool{}, 0
		for c.query.Limit = 20; ; asked++ {
			page, err := New(db).AuditEvents(t.Context(), c.query)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range page.Events {
				if found[e.ID] {
					t.Errorf("%s: %s is there twice", what, e.ID)
				}
				found[e.ID] = true
			}
			if c.query.Before = page.Next; page.Next == "" {
				break
			}
		}
		if len(found) != c.want {
			t.Errorf("%s: %d of %d were found", what, len(found), c.want)
		}
		t.Logf("%s: %v for %d pages", what, time.Since(began), asked+1)
	}
}

func count(list any) int {
	switch l := list.(type) {
	case []store.User:
		return len(l)
	case []store.Group:
		return len(l)
	case []store.Claim:
		return len(l)
	case []store.Grant:
		return len(l)
	case []store.Factor:
		return len(l)
	case []store.Revocation:
		return len(l)
	case store.AuditPage:
		return len(l.Events)
	}
	return -1
}

func second[T any](_ T, err error) error { return err }

// watched is a transaction that shows each statement before it runs.
type watched struct {
	sqldb.Q
	see func(query string, args []any)
}

func (w watched) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	w.see(query, args)
	return w.Q.Exec(ctx, query, args...)
}

func (w watched) Query(ctx context.Context, query string, args ...any) (*sqldb.Rows, error) {
	w.see(query, args)
	return w.Q.Query(ctx, query, args...)
}

func (w watched) QueryRow(ctx context.Context, query string, args ...any) sqldb.Row {
	w.see(query, args)
	return w.Q.QueryRow(ctx, query, args...)
}

var (
	sqliteCount = regexp.MustCompile(`(?m)^VM-steps: (\d+)$`)
	// What SQLite calls a scan: of nothing, or of a part that has been found already.
	sqliteOneRow = regexp.MustCompile(`^SCAN (CONSTANT ROW|r LEFT-JOIN|seen)$`)
	sqliteSorted = regexp.MustCompile(`u\.name_key [<>]|m\.user_key [<>]|FROM revocations WHERE|FROM audit_events WHERE`)
)

// sqlitePlan returns the tables that a statement scans. It lets no page be sorted, because
// sorting reads the whole list first.
func sqlitePlan(t *testing.T, q sqldb.Q, query string, args []any) {
	steps, err := sqldb.All(t.Context(), q, func(scan sqldb.Scan) (step string, err error) {
		var a, b, c int
		return step, scan(&a, &b, &c, &step)
	}, "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	for _, step := range steps {
		if strings.HasPrefix(step, "SCAN") && !sqliteOneRow.MatchString(step) || strings.Contains(step, "AUTOMATIC") ||
			strings.Contains(step, "ORDER BY") && sqliteSorted.MatchString(query) {
			t.Errorf("%s\n%s\n%s", step, query, strings.Join(steps, "\n"))
		}
	}
}

// sqliteSteps lets SQLite's own program count what a SELECT does; the plan does not
// say where in an index it begins to read.
func sqliteSteps(t *testing.T, path, query string, args []any, most int) {
	if !strings.HasPrefix(query, "SELECT") {
		return
	}
	script := ".stats vmstep\n"
	for i, a := range args {
		if s, ok := a.(string); ok {
			a = `"'` + s + `'"`
		}
		script += fmt.Sprintf(".parameter set ?%d %v\n", i+1, a)
	}
	count := exec.CommandContext(t.Context(), "sqlite3", "-bail", path)
	count.Stdin = strings.NewReader(script + query + ";")
	out, err := count.CombinedOutput()
	steps := sqliteCount.FindAllSubmatch(out, -1)
	if err != nil || len(steps) == 0 {
		t.Fatalf("%s %v\n%s", out, err, query)
	}
	if n, err := strconv.Atoi(string(steps[len(steps)-1][1])); err != nil || n > 20*most {
		t.Errorf("%d steps, %v\n%s", n, err, query)
	}
}

// A postgresNode is a step of a plan with its counts.
type postgresNode struct {
	Type    string         `json:"Node Type"`
	Table   string         `json:"Relation Name"`
	Index   string         `json:"Index Name"`
	Rows    float64        `json:"Actual Rows"`
	Loops   float64        `json:"Actual Loops"`
	Removed float64        `json:"Rows Removed by Filter"`
	Recheck float64        `json:"Rows Removed by Index Recheck"`
	Plans   []postgresNode `json:"Plans"`
}

// postgresPlan looks at the plans that a prepared statement comes to have. What reads
// is also run.
func postgresPlan(t *testing.T, q sqldb.Q, query string, args []any, most int) {
	analyze, call := "", ""
	if strings.HasPrefix(query, "SELECT") {
		analyze = "ANALYZE, "
	}
	for i, a := range args {
		switch v := a.(type) {
		case string:
			a = "'" + strings.ReplaceAll(v, "'", "''") + "'"
		case []byte:
			a = fmt.Sprintf(`'\x%x'`, v)
		}
		call += fmt.Sprint([]string{"(", ", "}[min(i, 1)], a)
	}
	if call != "" {
		call += ")"
	}
	do := func(statement string) {
		if _, err := q.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%v\n%s", err, statement)
		}
	}
	do("PREPARE watched AS " + numbered(query))
	defer do("DEALLOCATE watched")
	for range 7 { // PostgreSQL makes a plan for any arguments after five runs
		var text string
		if err := q.QueryRow(t.Context(), "EXPLAIN ("+analyze+"FORMAT JSON) EXECUTE watched"+call).Scan(&text); err != nil {
			t.Fatalf("%v\n%s", err, query)
		}
		var plans []struct{ Plan postgresNode }
		if err := json.Unmarshal([]byte(text), &plans); err != nil {
			t.Fatal(err)
		}
		rows := 0.0
		var walk func(n postgresNode)
		walk = func(n postgresNode) {
			if n.Table != "" || n.Index != "" {
				rows += (n.Rows + n.Removed + n.Recheck) * n.Loops
			}
			switch n.Table {
			case "users", "memberships", "factors", "revocations", "audit_events":
				if n.Type == "Seq Scan" {
					t.Errorf("a scan of %s", n.Table)
				}
			}
			for _, p := range n.Plans {
				walk(p)
			}
		}
		for _, p := range plans {
			walk(p.Plan)
		}
		if rows > float64(most) {
			t.Errorf("%v rows are read", rows)
		}
		if t.Failed() {
			t.Fatalf("%s\n%s", query, text)
		}
	}
}

// numbered writes parameters as PREPARE has them; none of our statements has a
// question mark that is something else.
func numbered(query string) string {
	for n := 1; strings.Contains(query, "?"); n++ {
		query = strings.Replace(query, "?", fmt.Sprint("$", n), 1)
	}
	return query
}

// mysqlPlan lets no statement look at all rows of a table that has many.
func mysqlPlan(t *testing.T, q sqldb.Q, query string, args []any, most int) {
	rows, err := q.Query(t.Context(), "EXPLAIN "+query, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
	defer rows.Close()
	for rows.Next() {
		// id, select_type, table, type, possible_keys, key, key_len, ref, rows, Extra
		var step [10]sql.NullString
		dest := make([]any, len(step))
		for i := range step {
			dest[i] = &step[i]
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		table, how := step[2].String, step[3].String
		if n, _ := strconv.Atoi(step[8].String); how == "ALL" && n > most && !strings.HasPrefix(table, "<") {
			t.Errorf("a scan of %s, some %d rows\n%s", table, n, query)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// mysqlReads is how many rows the storage engine has handed to this connection.
func mysqlReads(t *testing.T, q sqldb.Q) (sum int) {
	t.Helper()
	counters, err := sqldb.All(t.Context(), q, func(scan sqldb.Scan) (n int, err error) {
		var name string
		return n, scan(&name, &n)
	}, "SHOW SESSION STATUS LIKE 'Handler_read%'")
	if err != nil || len(counters) == 0 {
		t.Fatal(counters, err)
	}
	for _, n := range counters {
		sum += n
	}
	return sum
}
