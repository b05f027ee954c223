package sqldb_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/state/statetest"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/store/storetest"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// A replica of the former version keeps working when the schema is already the next
// one. So the statements of each version are kept, by the level of its schema, in files
// such as testdata/levels/00001.sqlite.json, and run here on the newest schema. After a
// change to a statement:
//
//	go test ./internal/sqldb -run TestLevels -record
//
// The file of level n stays as it is until a migration n+2, or a later one, is no
// _expand.
var record = flag.Bool("record", false, "record the statements of this version")

// A statement has run, and this is its result: the number of rows that matched, or for a
// SELECT the kinds of the columns (i, t, n for NULL), one word a row.
type statement struct {
	SQL     string     `json:"sql"`
	Args    []argument `json:"args,omitempty"`
	Ran     bool       `json:"ran"` // the result is known
	Matched int64      `json:"matched,omitempty"`
	Rows    []string   `json:"rows,omitempty"`
}

var databases = map[string]func(t *testing.T) string{
	"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "watchword.db") },
	"postgres": func(t *testing.T) string { return testenv.Postgres(t) },
	"mysql":    func(t *testing.T) string { return testenv.MariaDB(t) },
}

func TestLevels(t *testing.T) {
	for name, fresh := range databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if *record {
				writeLevel(t, name, fresh)
			}
			// A running replica is at most one version, and so one level, behind.
			oldest := max(oldestLevel(t, openLevel(t, sqldb.Config{URL: fresh(t)}, nil))-1, 1)
			for level := oldest; level <= newestLevel(t); level++ {
				file := levelFile(level, name)
				if _, err := replay(t.Context(), openLevel(t, sqldb.Config{URL: fresh(t)}, nil), readLevel(t, file)); err != nil {
					t.Errorf("%s does not work on the newest schema: %v", file, err)
				}
			}
		})
	}
}

// The recorded statements are all that this version has: none of those that the
// conformance suites run is missing.
func TestLevelsAreWhole(t *testing.T) {
	known := make(map[string]bool)
	for _, s := range readLevel(t, levelFile(newestLevel(t), "sqlite")) {
		known[s.SQL] = true
	}
	watch := func(query string, _ []any, _ error) {
		if !known[query] && !strings.Contains(query, "schema_versions") {
			t.Errorf("not recorded: %s", query)
		}
	}
	storetest.Run(t, "sqlite", func(t *testing.T) (a, b store.Store) {
		s := sqlstore.New(openLevel(t, sqldb.Config{URL: empty(t), Watch: watch}, nil))
		return s, s
	})
	db := openLevel(t, sqldb.Config{URL: empty(t), Watch: watch}, nil)
	statetest.Run(t, "sqlite", func(*testing.T) state.Store { return sqlstate.New(db, time.Now) })
}

// A future migration that would stop a replica of this version is found; one that only
// adds is not.
func TestLevelsHoldMigrations(t *testing.T) {
	everywhere := func(sql string) map[string]string {
		return map[string]string{"sqlite": sql, "postgres": sql, "mysql": sql}
	}
	for what, m := range map[string]struct {
		stops bool
		sql   map[string]string
	}{
		"adds a table":          {false, everywhere("CREATE TABLE more (id BIGINT NOT NULL PRIMARY KEY)")},
		"adds a column":         {false, everywhere("ALTER TABLE users ADD COLUMN more VARCHAR(64) NOT NULL DEFAULT ''")},
		"adds an index":         {false, everywhere("CREATE INDEX audit_events_action ON audit_events (action)")},
		"drops a column":        {true, everywhere("ALTER TABLE users DROP COLUMN email")},
		"renames a column":      {true, everywhere("ALTER TABLE claims RENAME COLUMN held_value TO content")},
		"drops a table":         {true, everywhere("DROP TABLE used_kids")},
		"forbids what is usual": {true, everywhere("CREATE UNIQUE INDEX audit_events_one ON audit_events (outcome)")},
		"requires a new value": {true, map[string]string{ // SQLite refuses it by itself
			"postgres": "ALTER TABLE state_records ADD COLUMN more BIGINT NOT NULL",
			"mysql":    "ALTER TABLE state_records ADD COLUMN more BIGINT NOT NULL",
		}},
		"changes a type": {true, map[string]string{ // SQLite's columns take any
			"postgres": "ALTER TABLE revocation_head ALTER COLUMN log_id TYPE INT USING 1",
			"mysql":    "ALTER TABLE revocation_head MODIFY seq VARCHAR(64) NOT NULL",
		}},
	} {
		for name, sql := range m.sql {
			t.Run(what+"/"+name, func(t *testing.T) {
				t.Parallel()
				files := fstest.MapFS{"migrations/09999_test_expand.sql": {Data: []byte("-- +goose Up\n" + sql + ";\n")}}
				for _, path := range migrations(t) {
					data, err := fs.ReadFile(sqldb.MigrationFiles(), path)
					if err != nil {
						t.Fatal(err)
					}
					files[path] = &fstest.MapFile{Data: data}
				}
				db := openLevel(t, sqldb.Config{URL: databases[name](t)}, files)
				_, err := replay(t.Context(), db, readLevel(t, levelFile(newestLevel(t), name)))
				if (err != nil) != m.stops {
					t.Errorf("the replica: %v", err)
				}
			})
		}
	}
}

func migrations(t *testing.T) []string {
	files, err := fs.Glob(sqldb.MigrationFiles(), "migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return files
}

// empty returns the URL of an SQLite database that has its tables.
func empty(t *testing.T) string {
	t.Helper()
	return sqldbtest.SQLite(t)
}

func openLevel(t *testing.T, cfg sqldb.Config, files fs.FS) *sqldb.DB {
	t.Helper()
	cfg.AcquireTimeout, cfg.Timeout = time.Minute, 2*time.Minute // on a busy machine
	db, err := sqldb.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if files != nil {
		db.SetMigrations(files)
	}
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

func newestLevel(t *testing.T) int {
	number, _, _ := strings.Cut(filepath.Base(slices.Max(migrations(t))), "_")
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func oldestLevel(t *testing.T, db *sqldb.DB) int {
	var n int
	if err := db.QueryRow(t.Context(), "SELECT value FROM settings WHERE name = 'schema_oldest'").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func levelFile(level int, database string) string {
	return filepath.Join("testdata", "levels", fmt.Sprintf("%05d.%s.json", level, database))
}

func readLevel(t *testing.T, file string) []statement {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; go test ./internal/sqldb -run TestLevels -record", err)
	}
	var all []statement
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(file, err)
	}
	return all
}

// An argument is a number, a text, bytes, or nothing, in JSON too.
type argument struct{ value any }

func (a argument) MarshalJSON() ([]byte, error) {
	if b, ok := a.value.([]byte); ok && b != nil {
		return json.Marshal(map[string][]byte{"bytes": b})
	} else if ok {
		return []byte("null"), nil
	}
	return json.Marshal(a.value)
}

func (a *argument) UnmarshalJSON(text []byte) error {
	switch text[0] {
	case 'n':
		a.value = nil
		return nil
	case '"':
		var s string
		err := json.Unmarshal(text, &s)
		a.value = s
		return err
	case '{':
		var b map[string][]byte
		err := json.Unmarshal(text, &b)
		a.value = b["bytes"]
		return err
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	a.value = n
	return err
}

// replay runs the statements one after the other and returns their results. It stops with
// an error at the first statement that fails, or whose result differs from the record.
func replay(ctx context.Context, db *sqldb.DB, all []statement) ([]statement, error) {
	done := slices.Clone(all)
	for i, s := range all {
		args := make([]any, len(s.Args))
		for i, a := range s.Args {
			args[i] = a.value
		}
		var err error
		if strings.HasPrefix(s.SQL, "SELECT") {
			done[i].Rows, err = kinds(ctx, db, s.SQL, args)
		} else {
			done[i].Matched, err = db.Exec(ctx, s.SQL, args...)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %s %v", err, s.SQL, args)
		}
		if s.Ran && (done[i].Matched != s.Matched || !slices.Equal(done[i].Rows, s.Rows)) {
			return nil, fmt.Errorf("it matched %d rows and returned %q, and now %d and %q: %s %v",
				s.Matched, s.Rows, done[i].Matched, done[i].Rows, s.SQL, args)
		}
		done[i].Ran = true
	}
	return done, nil
}

// kinds describes the result of a SELECT without its values, because the clock and random
// ids differ in every run.
func kinds(ctx context.Context, db *sqldb.DB, query string, args []any) (all []string, err error) {
	rows, err := db.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		columns, err := rows.Columns()
		if err != nil {
			return nil, err
		}
		values := make([]any, len(columns))
		into := make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row := ""
		for _, v := range values {
			switch v.(type) {
			case nil:
				row += "n"
			case int64:
				row += "i"
			default:
				row += "t"
			}
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// writeLevel runs the tours, runs their statements once more for their results, and
// records them.
func writeLevel(t *testing.T, database string, fresh func(t *testing.T) string) {
	t.Helper()
	var all []statement
	onTour := false
	db := openLevel(t, sqldb.Config{URL: fresh(t), Watch: func(query string, args []any, err error) {
		if !onTour || err != nil {
			return
		}
		s := statement{SQL: query}
		for _, a := range args {
			s.Args = append(s.Args, argument{a})
		}
		all = append(all, s)
	}}, nil)
	onTour = true
	storeTour(t, sqlstore.New(db), sqlstate.New(db, time.Now))
	stateTour(t, sqlstate.New(db, time.Now))
	onTour = false
	done, err := replay(t.Context(), openLevel(t, sqldb.Config{URL: fresh(t)}, nil), all)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for i, s := range done {
		line, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "%s%s", []string{"[\n", ",\n"}[min(i, 1)], line)
	}
	text.WriteString("\n]\n")
	file := levelFile(newestLevel(t), database)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, text.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// storeTour calls every method of a store, and reads a session with its user.
func storeTour(t *testing.T, s *sqlstore.Store, sessions *sqlstate.Store) {
	ctx, at := t.Context(), time.Unix(1_700_000_000, 0).UTC()
	ok := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	pages := []store.Page{
		{Limit: 2}, {After: "a", Limit: 2}, {Prefix: "a", Limit: 2}, {After: "ab", Prefix: "a", Limit: 2},
		{Descending: true, Limit: 2}, {After: "a", Descending: true, Limit: 2}, {Prefix: "a", Descending: true, Limit: 2},
	}
	user := store.User{ID: "u1", Username: "Alice", NameKey: "alice", Email: "a@example.com", FirstName: "A", LastName: "L", PasswordHash: "$", Epoch: 1, SessionEpoch: 1, CreatedAt: at, UpdatedAt: at, Version: 1}
	group := store.Group{ID: "g1", Name: "Admins", NameKey: "admins", CreatedAt: at, UpdatedAt: at, Version: 1}
	claim := store.Claim{ID: "c1", Name: "Admin", NameKey: "admin", ShortName: "admin", Value: "rw", CreatedAt: at, UpdatedAt: at, Version: 1}
	ok(s.CreateUser(ctx, user), s.CreateGroup(ctx, group), s.CreateClaim(ctx, claim))
	ok(s.AddMember(ctx, "u1", "g1"), s.AddClaim(ctx, "g1", "c1"))
	ok(second(s.User(ctx, "u1")), second(s.UserByName(ctx, "alice")), second(s.GroupsOfUser(ctx, "u1")), second(s.ClaimsOfUser(ctx, "u1")))
	ok(second(s.Group(ctx, "g1")), second(s.GroupByName(ctx, "admins")), second(s.ClaimsOfGroup(ctx, "g1")))
	ok(second(s.Claim(ctx, "c1")), second(s.ClaimByName(ctx, "admin")), second(s.GroupsWithClaim(ctx, "c1")))
	ok(second(s.AnyoneHolds(ctx, "admin", "rw")), second(s.AnyoneHoldsAny(ctx, "admin")))
	ok(second(s.PasswordHashes(ctx)))
	ok(second(s.UsersWithIDs(ctx, []string{"u1", "none"})), second(s.GroupsOfUsers(ctx, []string{"u1"})), second(s.GrantsOfUser(ctx, "u1")))
	mark := store.Mark{Kind: "email", Digest: "d", UserID: "u1"}
	ok(s.PutMark(ctx, mark), second(s.MarksOfUser(ctx, "u1")), second(s.TakenMark(ctx, "email", "d", "u2", at)), second(s.UsersNamed(ctx, "alice", "email", "d")))
	ok(second(s.ClaimsOfMarked(ctx, "d", "u2")), second(s.ClaimsOfMembers(ctx, "g1")), second(s.UsersWithoutMark(ctx, "name", "", 2)))
	ok(s.DeleteMark(ctx, "email", "d", "u1"), second(s.DeleteExpiredMarks(ctx, at, 2)))
	factor := store.Factor{ID: "f1", UserID: "u1", Kind: "totp", Digest: "d", Data: []byte("s"), CreatedAt: at, Version: 1}
	ok(s.CreateFactor(ctx, factor), second(s.FactorsOfUser(ctx, "u1")), second(s.FactorByDigest(ctx, "totp", "d")), second(s.Factors(ctx, "", 2)))
	ok(s.Update(ctx, func(r store.Records) error { // which locks
		return errors.Join(second(r.FactorsOfUser(ctx, "u1")), second(r.FactorByDigest(ctx, "totp", "d")))
	}))
	ok(s.UpdateFactor(ctx, factor), s.DeleteFactor(ctx, "f1"))
	_, _, err := s.UserWithClaims(ctx, "u1")
	ok(err)
	session := state.Key{Kind: "session", Owner: "u1", ID: "with-owner"}
	ok(second(sessions.Create(ctx, session, []byte("{}"), time.Hour)), second(sessions.Get(store.WithWantedSubject(ctx), session)))
	for _, p := range pages {
		ok(second(s.Users(ctx, p)), second(s.Groups(ctx, p)), second(s.Claims(ctx, p)), second(s.MembersOfGroup(ctx, "g1", p)))
	}
	user.NameKey, group.NameKey, claim.NameKey, user.EmailVerified = "alicia", "chiefs", "chief", true
	ok(s.UpdateUser(ctx, user), s.UpdateGroup(ctx, group), s.UpdateClaim(ctx, claim))
	ok(second(s.NextEpoch(ctx, "u1", true)), second(s.RaiseEpoch(ctx, "u1", 1, 2, true)))

	key := store.Key{ID: "k1", Instance: "i", Algorithm: "ES256", PublicJWK: []byte("{}"), Sealed: []byte("s"), CreatedAt: at, ActivateAt: at, RetireAt: at, RemoveAt: at}
	ok(s.CreateKey(ctx, key), s.UpdateKey(ctx, key), second(s.Keys(ctx)), s.DeleteKey(ctx, "k1"))

	replica := store.Replica{Instance: "i", Incarnation: "1", URL: "https://i", Version: "v", Config: "c", MaxAge: time.Minute, StartedAt: at, ClockAt: at, MAC: []byte("m")}
	for range 2 { // it enters, and enters again
		ok(second(s.EnterRegistry(ctx, replica, time.Minute)))
	}
	withSecrets := replica
	withSecrets.Instance, withSecrets.Secrets = "s", []string{"a", "b"}
	for range 2 {
		ok(second(s.EnterRegistry(ctx, withSecrets, time.Minute)))
	}
	ok(s.Beat(ctx, withSecrets, true), s.LeaveRegistry(ctx, "s", "1"))
	ok(s.Beat(ctx, replica, true), second(s.RegistryVersion(ctx)), second(s.Registered(ctx)), s.LeaveRegistry(ctx, "i", "1"))
	ok(second(s.EnterRegistry(ctx, replica, time.Minute)), s.ForgetReplica(ctx, "i", "1"))

	for range 2 { // the last entry is not deleted
		ok(second(s.AppendRevocation(ctx, store.Revocation{Kind: "jti", Subject: "j", IssuedBefore: at, ExpiresAt: at, CreatedAt: at, Actor: "u1", Reason: "logout"})))
	}
	_, _, err = s.RevocationsAfter(ctx, 0, 2)
	ok(err, second(s.RevocationsBefore(ctx, 0, 2)), second(s.DeleteExpiredRevocations(ctx, at.Add(time.Second), 2)), s.RenewLog(ctx, "another"))

	for i, id := range []string{"e1", "e2"} {
		ok(s.AppendAudit(ctx, store.AuditEvent{ID: id, At: at.Add(time.Duration(i)), Actor: "u1", Action: "login", Target: "t", Outcome: "ok", Address: "::1", Detail: "d"}))
	}
	for i := range 16 {
		q := store.AuditQuery{Limit: 2}
		if i&1 > 0 {
			q.Action = "login"
		}
		if i&2 > 0 {
			q.Actor = "u1"
		}
		if i&4 > 0 {
			q.Target = "t"
		}
		if i&8 > 0 {
			q.Address = "::1"
		}
		ok(second(s.AuditEvents(ctx, q)))
	}
	ok(second(s.AuditRange(ctx, "", "e2", 2)), second(s.AuditIDs(ctx, "", "e2", 2)))
	ok(second(s.DeleteAuditBefore(ctx, at.Add(time.Second), 2)))
	_, _, err = s.LastAuditSeal(ctx) // there is none
	ok(err)
	for seq := range int64(2) {
		ok(s.AppendAuditSeal(ctx, store.AuditSeal{Seq: seq + 1, Content: []byte("c"), MAC: []byte("m")}))
	}
	_, _, err = s.LastAuditSeal(ctx)
	ok(err, second(s.AuditSeals(ctx, 0, 2)), s.PutAuditSealMAC(ctx, 2, []byte("n")), second(s.DeleteAuditSeals(ctx, 2, 2)))

	ok(s.PutSetting(ctx, "a", "1"), s.PutSetting(ctx, "a", "2"), second(s.CreateSetting(ctx, "a", "3")), second(s.Setting(ctx, "a")))
	ok(s.Ping(ctx))
	ok(s.RemoveClaim(ctx, "g1", "c1"), s.RemoveMember(ctx, "u1", "g1"))
	ok(s.DeleteClaim(ctx, "c1"), s.DeleteGroup(ctx, "g1"), s.DeleteUser(ctx, "u1"))
}

// stateTour calls every method of shared state.
func stateTour(t *testing.T, s *sqlstate.Store) {
	ctx := t.Context()
	must := func(version int64, err error) int64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return version
	}
	key := func(id string) state.Key { return state.Key{Kind: "session", Owner: "u1", ID: id} }
	version := must(s.Create(ctx, key("a"), []byte("v"), time.Hour))
	if _, err := s.Create(ctx, key("a"), []byte("v"), time.Hour); err != state.ErrExists {
		t.Fatal(err)
	}
	must(s.Swap(ctx, key("a"), version, []byte("w"), time.Hour))
	must(s.Put(ctx, key("b"), []byte("v"), time.Hour))
	_, err := s.List(ctx, "session", "u1", "", 10)
	_, taken := s.Take(ctx, key("a"))
	_, swept := s.Sweep(ctx, 10)
	_, deleted := s.DeleteOwned(ctx, "session", "u1")
	if err := errors.Join(err, taken, swept, deleted, s.Delete(ctx, key("b")), s.Ping(ctx)); err != nil {
		t.Fatal(err)
	}
	for _, allowed := range []bool{true, false} {
		if d, err := s.Limit(ctx, key("r"), state.Rate{Burst: 1, Period: time.Hour}); err != nil || d.Allowed != allowed {
			t.Fatal(d, err)
		}
	}
	if _, err := s.Limit(ctx, key("r"), state.Rate{Burst: 1, Period: time.Second}); err != nil { // it is more than full
		t.Fatal(err)
	}
	if err := s.Reset(ctx, key("r")); err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }
