package operator

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
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

// Holders are the records that have sealed values in them.
type Holders interface {
	store.Keys
	store.Factors
}

// StorageBox returns the box that seals values at rest, under the configured storage key
// or, for SQLite without one, under a key file in the directory of the database. It also
// opens what is sealed under one of the previous keys.
//
// The key file is made if it is missing and nothing in the database needs another storage key
// than those that are given: a database with signing keys or second factors that do has lost its
// storage key, and a new one in its place would only hide that. Nil holders: no file is made.
func StorageBox(ctx context.Context, cfg *config.Config, holders Holders) (*seal.Box, error) {
	previous, err := previousKeys(cfg)
	if err != nil {
		return nil, err
	}
	primary, err := storageKey(ctx, cfg, holders, true, previous)
	if err != nil {
		return nil, err
	}
	return seal.New(primary, previous...)
}

// FactorBox returns the box that seals users' second factors: that of StorageBox, or, where there
// can be none, one under a key that is derived from the secret of the cluster, which also opens
// what is sealed under storage.previous_keys. With a storage key the derived key opens what was
// sealed before there was one. Nil: there is neither, and nobody can enrol.
//
// Nil holders: the program brings its own store, to which no key file belongs.
func FactorBox(ctx context.Context, cfg *config.Config, holders Holders) (*seal.Box, error) {
	previous, err := previousKeys(cfg)
	if err != nil {
		return nil, err
	}
	derived, err := derivedKey(cfg)
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.Storage.Key != "" || holders != nil && cfg.Database.IsSQLite():
		// Where signing keys are kept in memory, former ones in the database may be lost.
		signing := cfg.KeysIn() != config.KeysMemory && cfg.KeysIn() != config.KeysSecret
		primary, err := storageKey(ctx, cfg, holders, signing, previous)
		if err != nil {
			return nil, err
		}
		if derived != nil {
			previous = append(previous, derived)
		}
		return seal.New(primary, previous...)
	case derived != nil:
		return seal.New(derived, previous...)
	}
	return nil, nil
}

// derivedKey returns the key for factors that follows from the secret of the cluster, or nil if
// there is no secret, or one that could be guessed.
func derivedKey(cfg *config.Config) ([]byte, error) {
	if len(cfg.Cluster.Secret) < cluster.MinSecret {
		return nil, nil
	}
	return hkdf.Key(sha256.New, []byte(cfg.Cluster.Secret), nil, "watchword/factors/v1", seal.KeySize)
}

func previousKeys(cfg *config.Config) ([][]byte, error) {
	previous := make([][]byte, len(cfg.Storage.PreviousKeys))
	for i, text := range cfg.Storage.PreviousKeys {
		var err error
		if previous[i], err = seal.ParseKey(text); err != nil {
			return nil, fmt.Errorf("storage.previous_keys: %w", err)
		}
	}
	return previous, nil
}

// errNoKeyFile is followed by the file's name.
var errNoKeyFile = errors.New("storage.key: neither it nor the key file is there: set AUTH_STORAGE_KEY, or bring the file")

// storageKey returns the primary key. Signing says whether the signing keys that holders have are
// needed, as well as the factors.
func storageKey(ctx context.Context, cfg *config.Config, holders Holders, signing bool, previous [][]byte) ([]byte, error) {
	if cfg.Storage.Key != "" {
		key, err := seal.ParseKey(cfg.Storage.Key)
		if err != nil {
			return nil, fmt.Errorf("storage.key: %w", err)
		}
		return key, nil
	}
	file, ok := sqldb.SQLiteFile(cfg.Database.URL)
	if !ok {
		return nil, errors.New("storage.key: what is sealed in this database needs a storage key; set AUTH_STORAGE_KEY (openssl rand -base64 32)")
	}
	file += ".key"
	key, err := seal.ReadFile(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if holders == nil {
		return nil, fmt.Errorf("%w %s back", errNoKeyFile, file)
	}
	needs, err := needsAnotherKey(ctx, cfg, holders, signing, previous)
	switch {
	case err != nil:
		return nil, err
	case needs == "":
		return seal.FromFile(file)
	}
	if key, err := seal.ReadFile(file); err == nil {
		return key, nil // another process has made it meanwhile, and what needs it
	}
	return nil, fmt.Errorf("storage.key: the %s in the database are sealed under a storage key that is not given: set AUTH_STORAGE_KEY to it, or bring the key file %s back", needs, file)
}

// needsAnotherKey returns what in the database is sealed under another key than those that are
// given and the one that follows from the secret of the cluster; "": nothing.
func needsAnotherKey(ctx context.Context, cfg *config.Config, holders Holders, signing bool, given [][]byte) (string, error) {
	derived, err := derivedKey(cfg)
	if err != nil {
		return "", err
	}
	if derived != nil {
		given = append(slices.Clone(given), derived)
	}
	lost := func([]byte) bool { return true } // of what is sealed, or a MAC
	if len(given) > 0 {
		box, err := seal.New(given[0], given[1:]...)
		if err != nil {
			return "", err
		}
		lost = func(sealed []byte) bool { return !box.Knows(sealed) }
	}
	if signing {
		all, err := holders.Keys(ctx)
		if err != nil {
			return "", err
		}
		if slices.ContainsFunc(all, func(k store.Key) bool {
			switch keysource.NameOf(k.Sealed) {
			case keysource.NameMemory:
				return false
			case keysource.NameDatabase:
				return lost(k.Sealed)
			}
			return k.SourceMAC != nil && lost(k.SourceMAC) // kept elsewhere
		}) {
			return "signing keys", nil
		}
	}
	const page = 1000
	for after := ""; ; {
		some, err := holders.Factors(ctx, after, page)
		if err != nil {
			return "", err
		}
		if slices.ContainsFunc(some, func(f store.Factor) bool { return lost(f.Data) }) {
			return "second factors", nil
		}
		if len(some) < page {
			return "", nil
		}
		after = some[page-1].ID
	}
}
