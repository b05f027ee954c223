package backup

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

func box(t testing.TB, b byte, previous ...byte) *seal.Box {
	t.Helper()
	var older [][]byte
	for _, p := range previous {
		older = append(older, bytes.Repeat([]byte{p}, seal.KeySize))
	}
	made, err := seal.New(bytes.Repeat([]byte{b}, seal.KeySize), older...)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func open(t testing.TB, url string) *sqldb.DB {
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

// sqlite opens a database file, empty but for its tables.
func sqlite(t *testing.T) *sqldb.DB {
	t.Helper()
	return open(t, sqldbtest.SQLite(t))
}

// fill puts something into every table, and text of every sort.
func fill(t *testing.T, db *sqldb.DB) {
	t.Helper()
	ctx, s := t.Context(), sqlstore.New(db)
	sealed := box(t, 1).Seal([]byte("private"), "signing_keys/node-1")
	err := s.Update(ctx, func(r store.Records) error {
		for i, name := range []string{"alice", "Ünïcödé 🗝", `quo"te'\ and <tags> & ? $1`, "line\nbreak\ttab", "trailing "} {
			id := fmt.Sprint("user-", i)
			err := errors.Join(
				r.CreateUser(ctx, store.User{
					ID: id, Username: name, NameKey: name, Email: name + "@example.com", EmailVerified: i == 0, LastName: name,
					PasswordHash: "$argon2id$v=19$m=64,t=1,p=1$c2FsdA$aGFzaA", Disabled: i%2 == 1, CreatedAt: now, UpdatedAt: now, Version: 1,
				}),
				r.PutMark(ctx, store.Mark{Kind: "email", Digest: fmt.Sprint(i), UserID: id, Until: now}),
				r.CreateFactor(ctx, store.Factor{ID: fmt.Sprint("factor-", i), UserID: id, Kind: "passkey", Digest: name, Data: box(t, 1).Seal([]byte(name), "there"), CreatedAt: now}),
				r.CreateGroup(ctx, store.Group{ID: fmt.Sprint("group-", i), Name: name, NameKey: name, CreatedAt: now, UpdatedAt: now, Version: 1}),
				r.CreateClaim(ctx, store.Claim{ID: fmt.Sprint("claim-", i), Name: name, NameKey: name, ShortName: "log", Value: fmt.Sprint(i), CreatedAt: now, UpdatedAt: now, Version: 1}),
				r.AddMember(ctx, id, fmt.Sprint("group-", i)),
				r.AddClaim(ctx, fmt.Sprint("group-", i), fmt.Sprint("claim-", i)),
				r.AppendAudit(ctx, store.AuditEvent{ID: fmt.Sprint("event-", i), At: now, Actor: id, Action: "login", Outcome: "ok", Detail: name}),
				r.AppendAuditSeal(ctx, store.AuditSeal{Seq: int64(i + 1), Content: []byte(name), MAC: []byte{0, byte(i)}}),
			)
			if err != nil {
				return err
			}
		}
		_, err := r.NextEpoch(ctx, "user-0", true)
		for _, k := range []store.Key{{ID: "node-1", Sealed: sealed}, {ID: "node-2"}} {
			k.Instance, k.Algorithm, k.PublicJWK = "node", "ES256", []byte(`{"kty":"EC"}`)
			k.CreatedAt, k.ActivateAt, k.RetireAt, k.RemoveAt = now, now, now.Add(time.Hour), now.Add(2*time.Hour)
			err = errors.Join(err, r.CreateKey(ctx, k))
		}
		err = errors.Join(err, r.PutSetting(ctx, "some.setting", "a\x7fb"))
		for i := range 3 {
			_, appended := r.AppendRevocation(ctx, store.Revocation{Kind: "jti", Subject: fmt.Sprint("jti-", i), ExpiresAt: now.Add(time.Hour), CreatedAt: now})
			err = errors.Join(err, appended)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	states := sqlstate.New(db, time.Now)
	for id, value := range map[string][]byte{"empty": {}, "bytes": {0, 1, 2, 0xff, '"', '\\'}, "large": bytes.Repeat([]byte{0xfe}, state.MaxValue), "larger": bytes.Repeat([]byte{0xfd}, state.MaxValue)} {
		if _, err := states.Put(ctx, state.Key{Kind: "session", Owner: "user-0", ID: id}, value, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := states.Limit(ctx, state.Key{Kind: "login", Owner: "a", ID: "a"}, state.Rate{Burst: 5, Period: time.Hour}); err != nil {
		t.Fatal(err)
	}
}

func dump(t *testing.T, db *sqldb.DB, secret Secret) []byte {
	t.Helper()
	var file bytes.Buffer
	if _, err := Dump(t.Context(), db, &file, secret, now); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// contents are the rows of a backup.
func contents(t *testing.T, file []byte, secret Secret) []string {
	t.Helper()
	var rows []string
	_, err := read(bytes.NewReader(file), secret, func(t table, raw []byte) error {
		rows = append(rows, t.name+" "+string(raw))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(rows)
	return rows
}

func restore(t *testing.T, db *sqldb.DB, file []byte, secret Secret) {
	t.Helper()
	if _, err := Restore(t.Context(), bytes.NewReader(file), secret, Target{DB: db, Keys: box(t, 1)}); err != nil {
		t.Fatal(err)
	}
}

// wantEmpty fails unless the database is as migrations made it.
func wantEmpty(t *testing.T, db *sqldb.DB) {
	t.Helper()
	err := db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error { return checkEmpty(ctx, q) })
	if err != nil {
		t.Error(err)
	}
}

// From each kind of database to the next one, and nothing changes on the way.
func TestEveryKindOfDatabase(t *testing.T) {
	secret := Secret{Box: box(t, 1)}
	first := sqlite(t)
	fill(t, first)
	file := dump(t, first, secret)
	want := contents(t, file, secret)
	for _, table := range tables {
		if !slices.ContainsFunc(want, func(row string) bool { return strings.HasPrefix(row, table.name+" ") }) {
			t.Errorf("nothing of %s is in the backup", table.name)
		}
	}
	from := "sqlite"
	for _, to := range []struct {
		name string
		open func(t *testing.T) *sqldb.DB
	}{
		{"postgres", func(t *testing.T) *sqldb.DB { return open(t, testenv.Postgres(t)) }},
		{"mariadb", func(t *testing.T) *sqldb.DB { return open(t, testenv.MariaDB(t)) }},
		{"pgbouncer", func(t *testing.T) *sqldb.DB {
			return open(t, testenv.PgBouncer(t, testenv.Postgres(t)).URL)
		}},
		{"sqlite", sqlite},
	} {
		t.Run(from+" to "+to.name, func(t *testing.T) {
			db := to.open(t)
			restore(t, db, file, secret)
			file = dump(t, db, secret)
			if got := contents(t, file, secret); !slices.Equal(got, want) {
				t.Errorf("got  %.3000q\nwant %.3000q", got, want)
			}
		})
		from = to.name
	}
}

// What was revoked stays revoked, numbers continue, and followers notice the new log.
func TestRevocationLogGoesOn(t *testing.T) {
	a, b := sqlite(t), sqlite(t)
	fill(t, a)
	restore(t, b, dump(t, a, Secret{Box: box(t, 1)}), Secret{Box: box(t, 1)})
	before, headA, err := sqlstore.New(a).RevocationsAfter(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	after, headB, err := sqlstore.New(b).RevocationsAfter(t.Context(), 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(after, before) || headB.Seq != headA.Seq {
		t.Errorf("the log is %+v to %d, was %+v to %d", after, headB.Seq, before, headA.Seq)
	}
	if headB.ID == headA.ID {
		t.Error("two databases have the same log: numbers would mean two things")
	}
	if seq, err := sqlstore.New(b).AppendRevocation(t.Context(), before[0]); err != nil || seq != headA.Seq+1 {
		t.Errorf("the next number is %d, %v", seq, err)
	}
	if err := sqlstore.New(b).CreateKey(t.Context(), store.Key{ID: "node-2", PublicJWK: []byte("{}")}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a kid is used again: %v", err)
	}
}

// The schema has nothing that a backup would overlook.
func TestEveryColumnIsKnown(t *testing.T) {
	db := sqlite(t)
	read := func(scan sqldb.Scan) (s string, err error) { return s, scan(&s) }
	got, err := sqldb.All(t.Context(), db, read, `SELECT m.name || '.' || c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT IN ('schema_versions', 'replicas', 'replica_secrets')`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"registry_head.id", "revocation_head.id", "revocation_head.log_id"} // of the database itself
	for _, table := range tables {
		for _, c := range table.columns {
			want = append(want, table.name+"."+c.name)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the schema has\n%q\na backup\n%q\nAdd what is new to tables.go, with a default in its migration.", got, want)
	}
}

// Every cut and every changed byte is noticed before anything is written.
func TestDamage(t *testing.T) {
	from, to := sqlite(t), sqlite(t)
	fill(t, from)
	secret := Secret{Box: box(t, 1)}
	file := dump(t, from, secret)
	if len(file) < headerSize+2*(chunkSize+tagSize) {
		t.Fatalf("the file has %d bytes, too few for several chunks", len(file))
	}
	try := func(what string, damaged []byte) {
		t.Helper()
		_, err := Restore(t.Context(), bytes.NewReader(damaged), secret, Target{DB: to, Keys: secret.Box})
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotBackup) && !errors.Is(err, ErrKey) && !errors.Is(err, ErrNoPassphrase) {
			t.Errorf("%s: %v", what, err)
		}
	}
	chunk := func(i int) int { return headerSize + i*(chunkSize+tagSize) }
	for _, n := range []int{0, 5, headerSize - 1, headerSize, headerSize + 1, chunk(1) - 1, chunk(1), chunk(1) + 1, chunk(2), len(file) - 1} {
		try(fmt.Sprint("cut off at ", n), file[:n])
	}
	for _, at := range []int{0, len(magic), saltAt - 1, saltAt, sealedAt, sealedAt + 10, headerSize - 1, headerSize, chunk(1) - 1, chunk(1) + 7, len(file) - 1} {
		damaged := bytes.Clone(file)
		damaged[at] ^= 1
		try(fmt.Sprint("changed at ", at), damaged)
	}
	try("a chunk left out", slices.Concat(file[:chunk(1)], file[chunk(2):]))
	try("chunks changed over", slices.Concat(file[:chunk(0)], file[chunk(1):chunk(2)], file[chunk(0):chunk(1)], file[chunk(2):]))
	try("something after the end", append(bytes.Clone(file), 0))
	try("two files in one", append(bytes.Clone(file), file...))
	try("the header of another file", append(bytes.Clone(dump(t, from, secret)[:headerSize]), file[headerSize:]...))
	wantEmpty(t, to)
	restore(t, to, file, secret)
}

// The text is read as strictly as its envelope.
func TestWrongText(t *testing.T) {
	const start = `{"head":{"created":"2026-03-01T12:00:00Z"}}` + "\n"
	for name, tt := range map[string]struct {
		text string
		want error
	}{
		"nothing":             {"", ErrDamaged},
		"no JSON":             {"abc", ErrDamaged},
		"no head":             {`{"tail":{}}`, ErrNotBackup},
		"no tail":             {start, ErrDamaged},
		"a row of no table":   {start + `["a"]`, ErrDamaged},
		"an unknown table":    {start + `{"table":{"name":"horoscopes","columns":["id"]}}`, ErrNotBackup},
		"an unknown column":   {start + `{"table":{"name":"users","columns":["id","shoe_size"]}}`, ErrNotBackup},
		"no column":           {start + `{"table":{"name":"revocation_head","columns":[]}}[]`, ErrNotBackup},
		"a table twice":       {start + strings.Repeat(`{"table":{"name":"used_kids","columns":["id"]}}`, 2), ErrDamaged},
		"a row too short":     {start + `{"table":{"name":"used_kids","columns":["id"]}}[]`, ErrDamaged},
		"a number for a text": {start + `{"table":{"name":"used_kids","columns":["id"]}}[1]`, ErrDamaged},
		"no value":            {start + `{"table":{"name":"used_kids","columns":["id"]}}[null]`, ErrDamaged},
		"rows are missing":    {start + `{"table":{"name":"used_kids","columns":["id"]}}["a"]{"tail":{"used_kids":2}}`, ErrDamaged},
		"more after the tail": {start + `{"table":{"name":"used_kids","columns":["id"]}}["a"]{"tail":{"used_kids":1}}["b"]`, ErrDamaged},
		"as it should be":     {start + `{"table":{"name":"used_kids","columns":["id"]}}["a"]{"tail":{"used_kids":1}}`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			secret, db := Secret{Box: box(t, 1)}, sqlite(t)
			var file bytes.Buffer
			w, err := newWriter(&file, secret)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, tt.text); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			_, err = Restore(t.Context(), bytes.NewReader(file.Bytes()), secret, Target{DB: db})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				wantEmpty(t, db)
			}
		})
	}
}

func TestSecrets(t *testing.T) {
	from := sqlite(t)
	fill(t, from)
	// To make a key of a passphrase takes longer than all else. What the keys of the target
	// open does not depend on the secret of the file.
	key, phrase := Secret{Box: box(t, 1)}, Secret{Passphrase: "correct horse battery"}
	byKey, byPhrase := dump(t, from, key), dump(t, from, phrase)
	noKeys := sqlite(t)
	fill(t, noKeys)
	if err := sqlstore.New(noKeys).DeleteKey(t.Context(), "node-1"); err != nil {
		t.Fatal(err)
	}
	factors := dump(t, noKeys, key)
	for name, tt := range map[string]struct {
		file   []byte
		secret Secret
		to     Target
		want   error
	}{
		"another storage key":                    {byKey, Secret{Box: box(t, 2)}, Target{Keys: box(t, 2)}, ErrKey},
		"the storage key of before":              {byKey, Secret{Box: box(t, 2, 1)}, Target{Keys: box(t, 2, 1)}, nil},
		"a passphrase instead of the key":        {byKey, phrase, Target{Keys: box(t, 1)}, ErrNoStorageKey},
		"the passphrase":                         {byPhrase, phrase, Target{Keys: box(t, 1)}, nil},
		"another passphrase":                     {byPhrase, Secret{Passphrase: "correct horse batterz"}, Target{Keys: box(t, 1)}, ErrPassphrase},
		"the key instead of the passphrase":      {byPhrase, key, Target{Keys: box(t, 1)}, ErrNoPassphrase},
		"signing keys that do not open":          {byKey, key, Target{Keys: box(t, 2)}, ErrSealed},
		"signing keys and no storage key":        {byKey, key, Target{}, ErrSealed},
		"second factors that do not open":        {factors, key, Target{Keys: box(t, 2)}, ErrSealedFactors},
		"second factors and no key":              {factors, key, Target{}, ErrSealedFactors},
		"second factors under a previous key":    {factors, key, Target{Keys: box(t, 2, 1)}, nil},
		"second factors under another key":       {factors, key, Target{Keys: box(t, 2), Factors: box(t, 1)}, nil},
		"signing keys are not second factors":    {byKey, key, Target{Factors: box(t, 1)}, ErrSealed},
		"second factors, signed out":             {factors, key, Target{SignOut: true}, nil},
		"without signing keys, no key is needed": {byKey, key, Target{SignOut: true}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tt.to.DB = sqlite(t)
			if _, err := Restore(t.Context(), bytes.NewReader(tt.file), tt.secret, tt.to); !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if tt.want != nil {
				wantEmpty(t, tt.to.DB)
			}
		})
	}
	for _, secret := range []string{"$argon2id", "alice", "private"} {
		if bytes.Contains(byKey, []byte(secret)) || bytes.Contains(byPhrase, []byte(secret)) {
			t.Errorf("%q can be read in the file", secret)
		}
	}
}

// After a restore with SignOut there are neither sessions nor keys.
func TestSignOut(t *testing.T) {
	from, to := sqlite(t), sqlite(t)
	fill(t, from)
	secret := Secret{Box: box(t, 1)}
	done, err := Restore(t.Context(), bytes.NewReader(dump(t, from, secret)), secret, Target{DB: to, Keys: secret.Box, SignOut: true})
	if err != nil || done.Rows[keysTable] != 0 || done.Rows["users"] != 5 {
		t.Fatal(done, err)
	}
	for _, row := range contents(t, dump(t, to, secret), secret) {
		if strings.HasPrefix(row, recordsTable) || strings.HasPrefix(row, keysTable) {
			t.Errorf("there is %s", row)
		}
	}
}

// A link by which a user recovers is in no backup, since it may have been used when the backup
// is restored. All other factors are as they were.
func TestNoRecovery(t *testing.T) {
	from, to := sqlite(t), sqlite(t)
	fill(t, from)
	s, secret := sqlstore.New(from), Secret{Box: box(t, 1)}
	before := contents(t, dump(t, from, secret), secret)
	if err := s.CreateFactor(t.Context(), store.Factor{ID: "link", UserID: "user-0", Kind: "recovery", Digest: "d", Data: []byte("sealed")}); err != nil {
		t.Fatal(err)
	}
	file := dump(t, from, secret)
	restore(t, to, file, secret)
	if after := contents(t, file, secret); !slices.Equal(after, before) {
		t.Errorf("got %.3000q\nwant %.3000q", after, before)
	}
	factors, err := sqlstore.New(to).Factors(t.Context(), "", 10)
	if err != nil || len(factors) != 5 {
		t.Errorf("%d factors, %v", len(factors), err)
	}
	for _, f := range factors {
		if name, err := box(t, 1).Open(f.Data, "there"); err != nil || string(name) != f.Digest {
			t.Errorf("the factor %+v has %q, %v", f, name, err)
		}
	}
}

func TestNotEmpty(t *testing.T) {
	from := sqlite(t)
	fill(t, from)
	secret := Secret{Box: box(t, 1)}
	file := dump(t, from, secret)
	for _, one := range tables {
		t.Run(one.name, func(t *testing.T) {
			to := sqlite(t)
			// Only the rows of this table, whatever they refer to.
			err := to.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
				if _, err := q.Exec(ctx, "PRAGMA defer_foreign_keys = 1"); err != nil {
					return err
				}
				l := &loader{ctx: ctx, q: q}
				_, err := read(bytes.NewReader(file), secret, func(t table, raw []byte) error {
					if t.name != one.name && !(one.name == "memberships" && (t.name == "users" || t.name == "usergroups")) &&
						!((one.name == "verified_emails" || one.name == factorsTable) && t.name == "users") &&
						!(one.name == "group_claims" && (t.name == "claims" || t.name == "usergroups")) {
						return nil
					}
					return l.add(t, raw)
				})
				return errors.Join(err, l.flush())
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Restore(t.Context(), bytes.NewReader(file), secret, Target{DB: to, Keys: secret.Box}); !errors.Is(err, ErrNotEmpty) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The file goes away while it is loaded: nothing is there, and it works later.
func TestLoadIsAllOrNothing(t *testing.T) {
	from := sqlite(t)
	fill(t, from)
	secret := Secret{Box: box(t, 1)}
	file := dump(t, from, secret)
	for name, to := range map[string]*sqldb.DB{"sqlite": sqlite(t), "postgres": open(t, testenv.Postgres(t)), "mariadb": open(t, testenv.MariaDB(t))} {
		t.Run(name, func(t *testing.T) {
			broken := &breaking{ReadSeeker: bytes.NewReader(file), left: len(file) + len(file)*9/10}
			if _, err := Restore(t.Context(), broken, secret, Target{DB: to, Keys: secret.Box}); !errors.Is(err, errBroken) {
				t.Fatalf("got %v", err)
			}
			wantEmpty(t, to)
			restore(t, to, file, secret)
		})
	}
}

var errBroken = errors.New("broken")

// A breaking file ends with an error after so many bytes, all readings together.
type breaking struct {
	io.ReadSeeker
	left int
}

func (b *breaking) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errBroken
	}
	n, err := b.ReadSeeker.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// Writers write two records in each transaction. A backup has both or neither.
func TestOneState(t *testing.T) {
	for name, db := range map[string]*sqldb.DB{"sqlite": sqlite(t), "postgres": open(t, testenv.Postgres(t)), "mariadb": open(t, testenv.MariaDB(t))} {
		t.Run(name, func(t *testing.T) {
			secret := Secret{Box: box(t, 1)}
			ctx, stop := context.WithCancel(t.Context())
			var writers sync.WaitGroup
			began := make(chan struct{}, 1)
			s := sqlstore.New(db)
			for w := range 2 {
				writers.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						id := fmt.Sprint(w, "-", i)
						err := s.Update(ctx, func(r store.Records) error {
							return errors.Join(
								r.PutSetting(ctx, "s"+id, ""),
								r.AppendAudit(ctx, store.AuditEvent{ID: id, At: now}))
						})
						if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrBusy) {
							t.Error(err)
							return
						}
						select {
						case began <- struct{}{}:
						default:
						}
					}
				})
			}
			<-began
			for range 5 {
				var file bytes.Buffer
				done, err := Dump(t.Context(), db, &file, secret, now)
				if err != nil {
					t.Fatal(err)
				}
				if done.Rows["settings"] != done.Rows["audit_events"] || done.Rows["settings"] == 0 {
					t.Errorf("%d settings and %d events, which are written together", done.Rows["settings"], done.Rows["audit_events"])
				}
			}
			stop()
			writers.Wait()
		})
	}
}

// fillMany puts users into a database. Each is in two groups, has one session and one
// entry in the audit trail.
func fillMany(t testing.TB, db *sqldb.DB, users int) {
	t.Helper()
	const session = `QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3`
	of := map[string]func(i int) []string{
		"users": func(i int) []string {
			return []string{fmt.Sprintf(`["user-%07d","User %[1]d","user %07[1]d","u%[1]d@example.com","First","Last %[1]d","$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g",0,0,0,1,1,1]`, i)}
		},
		"usergroups": func(i int) []string {
			if i >= 10 {
				return nil
			}
			return []string{fmt.Sprintf(`["group-%d","Group %[1]d","group %[1]d",1,1,1]`, i)}
		},
		"memberships": func(i int) []string {
			return []string{
				fmt.Sprintf(`["user-%07d","group-%d","user %07[1]d"]`, i, i%10),
				fmt.Sprintf(`["user-%07d","group-%d","user %07[1]d"]`, i, (i+1)%10),
			}
		},
		"audit_events": func(i int) []string {
			return []string{fmt.Sprintf(`["event-%07d",1,"user-%07[1]d","login","user-%07[1]d","ok","192.0.2.1",""]`, i)}
		},
		recordsTable: func(i int) []string {
			return []string{fmt.Sprintf(`["session","user-%07d","s","%s",%d,9000000000000]`, i, strings.Repeat(session, 3), i)}
		},
	}
	err := db.InTx(t.Context(), func(ctx context.Context, q sqldb.Q) error {
		l := &loader{ctx: ctx, q: q}
		for _, table := range tables {
			rows, ok := of[table.name]
			for i := 0; ok && i < users; i++ {
				for _, row := range rows(i) {
					if err := l.add(table, []byte(row)); err != nil {
						return err
					}
				}
			}
		}
		return l.flush()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Nothing of a large database is lost between chunks and between statements; each table
// has several of them.
func TestMany(t *testing.T) {
	many := 3*maxRows + 50
	if os.Getenv("WATCHWORD_SOAK") != "" {
		many = 5_000
	}
	from, to := sqlite(t), open(t, testenv.Postgres(t))
	fillMany(t, from, many)
	secret := Secret{Box: box(t, 1)}
	file := dump(t, from, secret)
	restore(t, to, file, secret)
	if !slices.Equal(contents(t, dump(t, to, secret), secret), contents(t, file, secret)) {
		t.Error("another backup comes out than went in")
	}
}

// BenchmarkMove is what docs/storage.md says of 100,000 users: go test -run '^$'
// -bench Move -benchtime 1x ./internal/backup
func BenchmarkMove(b *testing.B) {
	secret := Secret{Box: box(b, 1)}
	last, name := open(b, "sqlite:"+filepath.Join(b.TempDir(), "watchword.db")), "sqlite"
	fillMany(b, last, 100_000)
	for _, next := range []struct {
		name string
		open func() *sqldb.DB // until the last one has been read
	}{
		{"postgres", func() *sqldb.DB { return open(b, testenv.Postgres(b)) }},
		{"mariadb", func() *sqldb.DB { return open(b, testenv.MariaDB(b)) }},
		{"sqlite", func() *sqldb.DB { return open(b, "sqlite:"+filepath.Join(b.TempDir(), "watchword.db")) }},
	} {
		from := last
		b.Run(name+" to "+next.name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "backup")
			var dumping, restoring time.Duration
			for b.Loop() {
				file, err := os.Create(path)
				if err != nil {
					b.Fatal(err)
				}
				w := bufio.NewWriterSize(file, 256<<10)
				to := next.open()
				began := time.Now()
				if _, err := Dump(b.Context(), from, w, secret, now); err != nil {
					b.Fatal(err)
				}
				if err := errors.Join(w.Flush(), file.Sync()); err != nil {
					b.Fatal(err)
				}
				dumping += time.Since(began)
				if _, err := file.Seek(0, io.SeekStart); err != nil {
					b.Fatal(err)
				}
				began = time.Now()
				if _, err := Restore(b.Context(), file, secret, Target{DB: to, Keys: secret.Box}); err != nil {
					b.Fatal(err)
				}
				restoring += time.Since(began)
				info, err := file.Stat()
				if err != nil {
					b.Fatal(err)
				}
				if err := file.Close(); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(info.Size())/1e6, "MB")
				last = to
			}
			b.ReportMetric(dumping.Seconds()/float64(b.N), "s/backup")
			b.ReportMetric(restoring.Seconds()/float64(b.N), "s/restore")
			b.ReportMetric(0, "ns/op")
		})
		name = next.name
	}
}
