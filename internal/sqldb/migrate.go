package sqldb

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

// The migrations: one set for all dialects. A part that differs is written {{so}} and
// replaced when a file is read (migrationFS). Every statement must be harmless when it
// runs twice, because MySQL commits each statement by itself, and a migration that was
// killed half-way starts again from its beginning.
//
// A schema may be newer than the binary while replicas are updated one after the other.
// The older binary goes on only if every newer migration merely adds what the binary need
// not know; the name of such a migration ends in _expand.sql. After any other migration,
// binaries that do not know it are refused: the row schema_oldest of settings holds the
// oldest version that a binary must know.
//
//go:embed migrations/*.sql
var migrationFiles embed.FS

// versions is goose's table of what has been applied.
const versions = "schema_versions"

// migrationLock is the key of the advisory lock on PostgreSQL.
const migrationLock = 0x7761746368776f72 // "watchwor"

// mysqlLock is the name of the lock on MySQL. There a name belongs to the server, not to
// the database, and has at most 64 characters.
const mysqlLock = "CONCAT('watchword ', MD5(DATABASE()))"

// A Migration is one step of the schema.
type Migration struct {
	Version int64
	Name    string // "00001_first.sql"
	Took    time.Duration
}

// ErrSchemaNewer: the schema was changed by a newer binary in a way that this one
// does not know.
var ErrSchemaNewer = errors.New("the database was changed by a newer version of Watchword; run that version, or a later one, on it")

// Pending returns the migrations that Migrate would apply. It changes nothing.
func (db *DB) Pending(ctx context.Context) ([]Migration, error) {
	has, err := db.SchemaVersion(ctx)
	if err != nil {
		return nil, err
	}
	all, err := migrationsOf(db.files)
	if err != nil {
		return nil, err
	}
	if newest := all[len(all)-1].Version; has > newest {
		return nil, db.checkNewer(ctx, has, newest)
	}
	for len(all) > 0 && all[0].Version <= has {
		all = all[1:]
	}
	return all, nil
}

// Migrate brings the schema to what this binary needs and returns what it applied. Of
// several processes that call it at once, one does the work and the others wait. After
// an ErrBusy it may be called again.
func (db *DB) Migrate(ctx context.Context) ([]Migration, error) {
	pending, err := db.Pending(ctx)
	if err != nil || len(pending) == 0 {
		return nil, err
	}
	lock := &migrationTx{dialect: db.dialect}
	files, err := db.migrationFS(ctx)
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(
		[...]goose.Dialect{goose.DialectSQLite3, goose.DialectPostgres, goose.DialectMySQL}[db.dialect],
		db.writer.db, files,
		goose.WithTableName(versions),
		goose.WithSessionLocker(lock),
		goose.WithIsolateDDL(true), // the transaction is the lock's
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return nil, fmt.Errorf("sqldb: migrate: %w", err)
	}
	var applied []Migration
	for _, m := range pending {
		lock.version = m.Version
		result, err := provider.ApplyVersion(ctx, m.Version, true)
		if errors.Is(err, goose.ErrAlreadyApplied) {
			continue // by another process, after Pending
		}
		if err != nil {
			cause := db.schemaCause(err)
			if cause == nil {
				// A migration does no harm twice, so a lost connection is an ErrBusy.
				cause = db.writer.explain(ctx, err, true)
			} else {
				db.writer.forget() // a connection that was made to a standby leads to it for ever
			}
			return applied, fmt.Errorf("migration %s: %w", m.Name, cause)
		}
		m.Took = result.Duration
		applied = append(applied, m)
	}
	return applied, nil
}

// SchemaVersion returns the version of the newest migration that was applied; it is 0 on
// an empty database.
func (db *DB) SchemaVersion(ctx context.Context) (int64, error) {
	var v sql.NullInt64
	err := db.QueryRow(ctx, "SELECT MAX(version_id) FROM "+versions).Scan(&v)
	switch {
	case err == nil:
		return v.Int64, nil
	case db.dialect.kindOf(err) == noTable:
		return 0, nil
	}
	return 0, cmp.Or(db.schemaCause(err), err)
}

func (db *DB) checkNewer(ctx context.Context, has, newest int64) error {
	var text string
	if err := db.QueryRow(ctx, "SELECT value FROM settings WHERE name = 'schema_oldest'").Scan(&text); err != nil {
		return err
	}
	oldest, err := strconv.ParseInt(text, 10, 64)
	if err != nil || newest < oldest {
		return fmt.Errorf("%w (its schema is version %d, this binary knows %d)", ErrSchemaNewer, has, newest)
	}
	return nil
}

// Migrations returns all that this binary knows, in their order.
func Migrations() ([]Migration, error) { return migrationsOf(migrationFiles) }

func migrationsOf(files fs.FS) ([]Migration, error) {
	entries, err := fs.ReadDir(files, "migrations")
	if err != nil {
		return nil, err
	}
	var all []Migration
	for _, e := range entries {
		v, err := goose.NumericComponent(e.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, Migration{Version: v, Name: e.Name()})
	}
	return all, nil
}

// A migrationTx locks out other processes and makes a migration one transaction.
// It implements goose's SessionLocker: everything between Lock and Unlock runs on
// one connection. On PostgreSQL the lock belongs to the transaction, so that it
// works behind PgBouncer. MySQL has no transactions over DDL, only the lock.
type migrationTx struct {
	dialect Dialect
	version int64 // the migration that is being applied
}

func (m *migrationTx) SessionLock(ctx context.Context, conn *sql.Conn) error {
	switch m.dialect {
	case SQLite:
		return execOn(ctx, conn, "BEGIN IMMEDIATE")
	case Postgres:
		if err := execOn(ctx, conn, "BEGIN"); err != nil {
			return err
		}
		err := execOn(ctx, conn, fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", migrationLock))
		if err == nil {
			err = makeVersions(ctx, conn)
		}
		if err != nil { // SessionUnlock will not be called, and the pool gets the connection back
			_ = execOn(context.WithoutCancel(ctx), conn, "ROLLBACK")
		}
		return err
	default:
		var got sql.NullInt64
		err := conn.QueryRowContext(ctx, "SELECT GET_LOCK("+mysqlLock+", 600)").Scan(&got)
		if err == nil && got.Int64 != 1 {
			err = errors.New("another process has been migrating for ten minutes")
		}
		return err
	}
}

// SessionUnlock commits if goose has recorded the migration, which it does last.
func (m *migrationTx) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	if m.dialect == MySQL {
		return execOn(ctx, conn, "DO RELEASE_LOCK("+mysqlLock+")")
	}
	var done bool
	err := conn.QueryRowContext(ctx, fmt.Sprintf("SELECT COUNT(*) > 0 FROM %s WHERE version_id = %d", versions, m.version)).Scan(&done)
	if err != nil || !done {
		return execOn(ctx, conn, "ROLLBACK")
	}
	return execOn(ctx, conn, "COMMIT")
}

// makeVersions makes goose's table if there is none. Goose would try to do so several times
// in the same transaction, and its error would be that of the last time: that the
// transaction has been aborted.
func makeVersions(ctx context.Context, conn *sql.Conn) error {
	table, err := database.NewStore(goose.DialectPostgres, versions)
	if err != nil {
		return err
	}
	exists, err := table.(database.StoreExtender).TableExists(ctx, conn)
	if err != nil || exists {
		return err
	}
	if err := table.CreateVersionTable(ctx, conn); err != nil {
		return err
	}
	return table.Insert(ctx, conn, database.InsertRequest{Version: 0})
}

func execOn(ctx context.Context, conn *sql.Conn, query string) error {
	_, err := conn.ExecContext(ctx, query)
	return err
}

// migrationFS returns the migrations as the database reads them.
func (db *DB) migrationFS(ctx context.Context) (fs.FS, error) {
	// Names are compared byte by byte on every database, without regard to language:
	// then an index serves prefixes, and different names are never equal. So on MySQL
	// the collation must not ignore trailing spaces; MariaDB and MySQL have different
	// names for such a collation.
	words := map[Dialect][]string{
		SQLite: {
			"{{bin}}", "", "{{blob}}", "BLOB", "{{table}}", "",
			"{{random}}", "lower(hex(randomblob(16)))",
		},
		Postgres: {
			"{{bin}}", ` COLLATE "C"`, "{{blob}}", "BYTEA", "{{table}}", "",
			"{{random}}", "replace(gen_random_uuid()::text, '-', '')",
		},
		MySQL: {
			"{{bin}}", "", "{{blob}}", "MEDIUMBLOB", "{{random}}", "replace(uuid(), '-', '')",
		},
	}[db.dialect]
	if db.dialect == MySQL {
		var collation string
		err := db.QueryRow(ctx, `SELECT collation_name FROM information_schema.collations
			WHERE collation_name IN ('utf8mb4_nopad_bin', 'utf8mb4_0900_bin') ORDER BY collation_name LIMIT 1`).Scan(&collation)
		if err != nil {
			return nil, fmt.Errorf("sqldb: migrate: this server has no binary collation without padding; MySQL 8 or MariaDB 10.2 is needed: %w", err)
		}
		words = append(words, "{{table}}", " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE "+collation)
	}
	sub, err := fs.Sub(db.files, "migrations")
	return renderedFS{sub, strings.NewReplacer(words...)}, err
}

// A renderedFS replaces words in the files as they are opened.
type renderedFS struct {
	fs.FS
	words *strings.Replacer
}

func (r renderedFS) Open(name string) (fs.File, error) {
	f, err := r.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return f, err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sql := r.words.Replace(string(text))
	if v, err := goose.NumericComponent(name); err == nil && !strings.HasSuffix(name, "_expand.sql") {
		sql += fmt.Sprintf("\nUPDATE settings SET value = '%d' WHERE name = 'schema_oldest';\n", v)
	}
	return renderedFile{info, bytes.NewReader([]byte(sql))}, nil
}

type renderedFile struct {
	info fs.FileInfo
	*bytes.Reader
}

func (f renderedFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f renderedFile) Close() error               { return nil }
