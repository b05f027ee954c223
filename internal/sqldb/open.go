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

// An idle connection is closed after IdleTime, and any connection after lifeTime, so that
// the pool follows a load balancer in front of the database, or a new primary.
const (
	IdleTime = 5 * time.Minute
	lifeTime = 30 * time.Minute
)

// Config says which database to open and how long to wait for it.
type Config struct {
	// URL is sqlite:path, postgres://user:password@host:port/name?options (as pgx
	// reads it, with several hosts, too), or mysql://user:password@host:port/name
	// (with the options of go-sql-driver).
	URL string
	// Now returns the URL as it is now: the user and the password in it may change. It is
	// called for every connection that is made. Nil: URL.
	Now func() string
	// MaxConnections bounds the pool, including the connection that is kept for
	// Prompt. Zero: DefaultMaxConnections.
	MaxConnections int
	// AcquireTimeout is how long a caller waits for a free connection, and for how
	// long a transaction is run again. Making a connection may take as long, and at
	// least 5 s. Zero: DefaultAcquireTimeout.
	AcquireTimeout time.Duration
	// Timeout bounds one statement or one transaction, including the wait for a
	// connection, so that a database that hangs does not hang its callers. It does not
	// bound migrations. On SQLite, where AcquireTimeout bounds the wait for other
	// processes, it is checked between statements and rows. Zero: DefaultTimeout.
	Timeout time.Duration
	// Logger gets warnings about how the database is set up; nil: none.
	Logger *slog.Logger
	// Registerer gets the metrics; nil: none.
	Registerer prometheus.Registerer
	// Watch, if set, is called with every statement of Exec and Query after it ran.
	// It is for tests: the arguments include secrets.
	Watch func(query string, args []any, err error)
}

// A DB is an open database. Its own Exec, Query and QueryRow are each a
// transaction of their own.
type DB struct {
	cfg     Config
	dialect Dialect
	writer  *pool
	reader  *pool    // the writer itself, except on SQLite
	commits *commits // SQLite: the commits of single statements; else nil
	files   fs.FS    // the migrations
	metrics *metrics
	prompt  bool

	credentials *credentials      // nil: SQLite
	pooled      bool              // PostgreSQL: a pooler changes connections between transactions
	variables   map[string]string // MySQL: what each connection sets
	statements  bool              // MySQL: the binary log holds statements, not rows
}

// Open connects to the database and makes sure that it answers. It leaves the schema to
// Migrate. The error is an ErrBusy if the database may answer later.
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
	if cfg.Now == nil {
		cfg.Now = func() string { return cfg.URL }
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

// Dialect returns the kind of SQL that the database speaks.
func (db *DB) Dialect() Dialect { return db.dialect }

// Pooled reports whether a pooler, such as PgBouncer, stands before the server and changes
// connections between transactions.
func (db *DB) Pooled() bool { return db.pooled }

// Prompt returns the same database for rare, short work that must not wait behind other
// callers: one of MaxConnections is kept for it. None is kept if there is only one. On
// SQLite one more is kept for reading; there is one connection that writes, whose callers
// share its commits.
func (db *DB) Prompt() *DB {
	prompt := *db
	prompt.prompt = true
	return &prompt
}

// abandonedAfter is how long a server keeps a transaction open for a silent client, whose
// machine or network may be gone: its locked rows are locked for every other client. By
// default it is 10 s of the 15 s that a transaction may take; a live client spends next
// to no time between two statements.
func (db *DB) abandonedAfter() time.Duration {
	return max((db.cfg.Timeout * 2 / 3).Truncate(time.Second), time.Second)
}

// LockTimeout is how long a server lets a statement wait for a lock. It is shorter than
// the caller waits for the statement, so that a statement whose caller has given up is
// not done much later. MySQL counts whole seconds.
//
// On MySQL each connection sets the bound. On PostgreSQL none does, because PgBouncer
// would pass the setting on to other clients: a statement that needs the bound sets it
// itself.
func (db *DB) LockTimeout() time.Duration {
	return max((db.cfg.Timeout - time.Second).Truncate(time.Second), time.Second)
}

// Ping returns nil if the database answers.
func (db *DB) Ping(ctx context.Context) error {
	var one int
	return db.QueryRow(ctx, "SELECT 1").Scan(&one)
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

// parseURL reads a database URL. Its errors never show the URL, which has a password.
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
