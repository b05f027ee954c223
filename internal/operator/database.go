package operator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
)

// OpenDatabase opens the database that cfg names and leaves its schema as it is.
func OpenDatabase(ctx context.Context, cfg *config.Config, logger *slog.Logger) (*sqldb.DB, error) {
	return openDatabase(ctx, cfg, nil, logger, nil, 0)
}

// OpenMeasured is OpenDatabase with metrics, for a process in which the credentials of the
// database may change: url returns database.url as it is now.
func OpenMeasured(ctx context.Context, cfg *config.Config, url func() string, logger *slog.Logger, registry prometheus.Registerer) (*sqldb.DB, error) {
	return openDatabase(ctx, cfg, url, logger, registry, 0)
}

// openDatabase bounds one transaction by timeout; zero: by the default of sqldb.
func openDatabase(ctx context.Context, cfg *config.Config, url func() string, logger *slog.Logger, registry prometheus.Registerer, timeout time.Duration) (*sqldb.DB, error) {
	if err := makeDataDirectory(cfg.Database.URL); err != nil {
		return nil, err
	}
	return sqldb.Open(ctx, sqldb.Config{
		URL: cfg.Database.URL, Now: url, MaxConnections: cfg.Database.MaxConnections, AcquireTimeout: cfg.Database.AcquireTimeout,
		Timeout: timeout, Logger: logger, Registerer: registry,
	})
}

// Migrate brings the schema of the database that cfg names up to date and returns what it
// applied. A dry run changes nothing and returns what is pending.
func Migrate(ctx context.Context, cfg *config.Config, logger *slog.Logger, dryRun bool) (migrations []sqldb.Migration, err error) {
	if dryRun && databaseThere(cfg) != nil {
		return sqldb.Migrations() // opening the database would make it
	}
	db, err := OpenDatabase(ctx, cfg, logger)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if dryRun {
		return db.Pending(ctx)
	}
	return db.Migrate(ctx)
}

// UpdateSchema brings the schema of an open database up to date.
func UpdateSchema(ctx context.Context, db *sqldb.DB, logger *slog.Logger) error {
	applied, err := db.Migrate(ctx)
	for _, m := range applied {
		logger.Info("migrated the database", "migration", m.Name, "took", m.Took)
	}
	return err
}

// databaseThere returns an error if the file of a SQLite database is missing.
func databaseThere(cfg *config.Config) error {
	file, ok := sqldb.SQLiteFile(cfg.Database.URL)
	if !ok {
		return nil
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("database.url: there is no database %s", file)
	}
	return nil
}

// makeDataDirectory makes the directory of the default database, so that a first start
// needs no preparation. Any other directory has to be there already: a wrong path is an
// error and not an empty database somewhere else.
func makeDataDirectory(url string) error {
	if url != config.Default().Database.URL {
		return nil
	}
	file, _ := sqldb.SQLiteFile(url)
	dir := filepath.Dir(file)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("database.url: %w", err)
	}
	return nil
}

// StorageBox returns the box that seals values at rest, under the configured storage key
// or, for SQLite without one, under a key file in the directory of the database. It also
// opens what is sealed under one of the previous keys.
func StorageBox(cfg *config.Config) (*seal.Box, error) {
	primary, err := storageKey(cfg)
	if err != nil {
		return nil, err
	}
	previous := make([][]byte, len(cfg.Storage.PreviousKeys))
	for i, text := range cfg.Storage.PreviousKeys {
		if previous[i], err = seal.ParseKey(text); err != nil {
			return nil, fmt.Errorf("storage.previous_keys: %w", err)
		}
	}
	return seal.New(primary, previous...)
}

func storageKey(cfg *config.Config) ([]byte, error) {
	if cfg.Storage.Key != "" {
		key, err := seal.ParseKey(cfg.Storage.Key)
		if err != nil {
			return nil, fmt.Errorf("storage.key: %w", err)
		}
		return key, nil
	}
	path, ok := sqldb.SQLiteFile(cfg.Database.URL)
	if !ok {
		return nil, errors.New("storage.key: what is sealed in this database needs a storage key; set AUTH_STORAGE_KEY (openssl rand -base64 32)")
	}
	return seal.FromFile(path + ".key")
}
