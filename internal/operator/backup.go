package operator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/backup"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/newfile"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// Backup writes the database of cfg into a new file, which is there, complete and
// on disk, when it returns nil. Replicas may run meanwhile. The file is encrypted with
// the passphrase or, if that is empty, with the storage key.
func Backup(ctx context.Context, cfg *config.Config, logger *slog.Logger, path, passphrase string) (done backup.Summary, err error) {
	if err := databaseThere(cfg); err != nil {
		return done, err
	}
	db, err := OpenDatabase(ctx, cfg, logger)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.CheckSchema(ctx); err != nil {
		return done, err
	}
	secret := backup.Secret{Passphrase: passphrase}
	if passphrase == "" {
		if secret.Box, err = StorageBox(ctx, cfg, sqlstore.New(db)); err != nil {
			return done, fmt.Errorf("%w; or encrypt the backup with a passphrase (--passphrase)", err)
		}
	}
	err = newfile.WriteAnywhere(path, func(w io.Writer) error {
		done, err = backup.Dump(ctx, db, w, secret, time.Now())
		return err
	})
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("%s is there already; name a new file", path)
	}
	return done, err
}

// restoreTimeout bounds the one transaction of a restore.
const restoreTimeout = 24 * time.Hour

// Restore brings the schema of the database of cfg up to date and writes a backup
// into it, which must be empty. See backup.Target about signOut.
func Restore(ctx context.Context, cfg *config.Config, logger *slog.Logger, path, passphrase string, signOut bool) (done backup.Summary, err error) {
	file, err := os.Open(path)
	if err != nil {
		return done, err
	}
	defer file.Close()
	to := backup.Target{SignOut: signOut}
	secret := backup.Secret{Passphrase: passphrase}
	if passphrase == "" { // the backup is encrypted under a storage key, which no new one can be
		to.Keys, err = StorageBox(ctx, cfg, nil)
		if errors.Is(err, errNoKeyFile) && len(cfg.Storage.PreviousKeys) == 0 {
			key := make([]byte, seal.KeySize)
			_, _ = rand.Read(key)        // never fails
			to.Keys, err = seal.New(key) // which opens nothing: package backup says what is needed
		}
		if err != nil {
			return done, err
		}
		secret.Box = to.Keys
	}
	if to.DB, err = openDatabase(ctx, cfg, nil, logger, nil, restoreTimeout); err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, to.DB.Close()) }()
	if err := UpdateSchema(ctx, to.DB, logger); err != nil {
		return done, err
	}
	if to.Keys == nil && (cfg.Storage.Key != "" || cfg.Database.IsSQLite()) {
		if to.Keys, err = StorageBox(ctx, cfg, sqlstore.New(to.DB)); err != nil {
			return done, err
		}
	}
	derived, err := derivedKey(cfg)
	if err != nil {
		return done, err
	}
	if derived != nil {
		if to.Factors, err = seal.New(derived); err != nil {
			return done, err
		}
	}
	if done, err = backup.Restore(ctx, file, secret, to); err != nil {
		return done, err
	}
	return done, record(ctx, to.DB, logger, store.AuditEvent{Action: "storage.restore", Outcome: audit.OK, Detail: "backup of " + done.Created.Format(time.RFC3339)})
}

// record writes an event into the audit trail of a database.
func record(ctx context.Context, db *sqldb.DB, logger *slog.Logger, e store.AuditEvent) error {
	trail, err := audit.New(audit.Config{Store: sqlstore.New(db), Now: time.Now, Rand: rand.Reader, Logger: logger, Registerer: prometheus.NewRegistry()})
	if err == nil {
		trail.Record(ctx, e)
	}
	return err
}
