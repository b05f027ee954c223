package sqldb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of Config.
const (
	DefaultMaxConnections = 10
	DefaultAcquireTimeout = 5 * time.Second
	DefaultTimeout        = 15 * time.Second
)

// Connections that are not needed are closed after idleTime, and every one after
// lifeTime, so that a balancer in front of the database, or a new primary, is
// noticed.
const (
	idleTime = 5 * time.Minute
	lifeTime = 30 * time.Minute
)

// Config says which database to open and how patient to be with it.
type Config struct {
	// URL is sqlite:path, postgres://user:password@host:port/name?options (what
	// pgx reads, several hosts too), or mysql://user:password@host:port/name
	// (options are those of go-sql-driver).
	URL string
	// MaxConnections bounds the pool, with the one that is kept for Prompt. Zero:
	// DefaultMaxConnections.
	MaxConnections int
	// AcquireTimeout is how long a caller waits for a free connection, and how
	// long a transaction is tried again. Making a connection may take as long, and
	// 5 s in any case. Zero: DefaultAcquireTimeout.
	AcquireTimeout time.Duration
	// Timeout bounds one statement or one transaction, everything included, so
	// that a database that hangs does not hang its callers. It does not bound
	// migrations. On SQLite, where AcquireTimeout bounds waiting for other
	// processes, it is looked at between statements and rows. Zero: DefaultTimeout.
	Timeout time.Duration
	// Logger gets warnings about how the database is set up; nil: none.
	Logger *slog.Logger
	// Registerer gets the metrics; nil: none.
	Registerer prometheus.Registerer
	// Watch, if set, is told every statement of Exec and Query after it ran. It is
	// for tests: among the arguments are secrets.
	Watch func(query string, args []any, err error)
}

// A DB is an open database. Its own Exec, Query and QueryRow are each a
// transaction of their own.
type DB struct {
	cfg     Config
	dialect Dialect
	writer  *pool
	reader  *pool    // the same as writer, but on SQLite
	commits *commits // SQLite: of single statements; else nil
	files   fs.FS    // the migrations
	metrics *metrics
	prompt  bool
}

// Open connects to the database and makes sure that it answers. It does not
// touch the schema: that is Migrate. The error is an ErrBusy if the database may
// answer later.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = DefaultMaxConnections
	}
	if cfg.AcquireTimeout == 0 {
		cfg.AcquireTimeout = DefaultAcquireTimeout
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Watch == nil {
		cfg.Watch = func(string, []any, error) {}
	}
	db := &DB{cfg: cfg, files: migrationFiles}
	var err error
	switch scheme, _, _ := strings.Cut(cfg.URL, ":"); scheme {
	case "sqlite":
		err = db.openSQLite(ctx)
	case "postgres", "postgresql":
		err = db.openPostgres(ctx)
	case "mysql":
		err = db.openMySQL(ctx)
	default:
		err = errors.New("it must begin with sqlite:, postgres:// or mysql://")
	}
	if err != nil {
		return nil, fmt.Errorf("database.url: %w", err)
	}
	db.metrics = newMetrics(db)
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(db.metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("sqldb: %w", err), db.Close())
		}
	}
	return db, nil
}

// Dialect says which SQL the database speaks.
func (db *DB) Dialect() Dialect { return db.dialect }

// Prompt is the same database for what must not wait behind others for a connection,
// is rare, and does not take long: one of MaxConnections is kept for it. Of a single
// one none is, nor on SQLite, where nobody has one for long.
func (db *DB) Prompt() *DB {
	prompt := *db
	prompt.prompt = true
	return &prompt
}

// fullFor is for how long a server that had no space for a write is said to have
// none, unless another write finds some sooner. In a cluster one comes every second.
const fullFor = time.Minute

// abandonedAfter is for how long a server keeps a transaction, and the rows that it has
// locked for all others, of a client that says nothing: one whose machine or network has
// gone cannot even end it. Here next to nothing happens between two statements: 10 s of
// the 15 that a transaction may take.
func (db *DB) abandonedAfter() time.Duration {
	return max((db.cfg.Timeout * 2 / 3).Truncate(time.Second), time.Second)
}

// LockTimeout is how long a server lets a statement wait for a lock: shorter than
// the caller waits for the statement, so that what a caller has given up is not
// done much later. MySQL counts whole seconds.
//
// MySQL is told with each connection. PostgreSQL is not, because PgBouncer would
// hand the setting to others: a statement that needs the bound says so itself.
func (db *DB) LockTimeout() time.Duration {
	return max((db.cfg.Timeout - time.Second).Truncate(time.Second), time.Second)
}

// Ping asks whether the database answers, and takes what is written. As long as no
// write has failed for want of space, it does not write; reading goes on without.
func (db *DB) Ping(ctx context.Context) error {
	if since := db.writer.full.Load(); since != 0 {
		if db.dialect == SQLite {
			return db.probe(ctx)
		}
		if time.Since(time.Unix(0, since)) < fullFor {
			return fmt.Errorf("sqldb: %w", ErrFull)
		}
	}
	var one int
	return db.QueryRow(ctx, "SELECT 1").Scan(&one)
}

// probe writes to the file, to see whether there is space again.
func (db *DB) probe(ctx context.Context) error {
	_, err := db.Exec(ctx, "PRAGMA user_version = 0")
	if err == nil {
		db.writer.full.Store(0)
	}
	return err
}

// Close ends all connections.
func (db *DB) Close() error {
	if db.cfg.Registerer != nil && db.metrics != nil {
		db.cfg.Registerer.Unregister(db.metrics)
	}
	err := db.writer.close()
	if db.reader != db.writer {
		err = errors.Join(err, db.reader.close())
	}
	return err
}

// parseURL reads a database URL. Its errors never show it: it has a password.
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("it cannot be read (%w); special characters in a password are written as %%XX", err)
	}
	return u, nil
}
