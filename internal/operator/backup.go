package operator

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/backup"
	"github.com/watchword-auth/watchword/internal/config"
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
	secret := backup.Secret{Passphrase: passphrase}
	if passphrase == "" {
		if secret.Box, err = StorageBox(cfg); err != nil {
			return done, fmt.Errorf("%w; or encrypt the backup with a passphrase (--passphrase)", err)
		}
	}
	db, err := OpenDatabase(ctx, cfg, logger)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.CheckSchema(ctx); err != nil {
		return done, err
	}
	err = writeNew(path, func(w *bufio.Writer) error {
		done, err = backup.Dump(ctx, db, w, secret, time.Now())
		return err
	})
	return done, err
}

// writeNew makes a file that nobody else may read. It has its name only when write
// has come to its end and all is on disk.
func writeNew(path string, write func(w *bufio.Writer) error) (err error) {
	taken := fmt.Errorf("%s is there already; name a new file", path)
	if _, err := os.Lstat(path); err == nil {
		return taken
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.partial") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if gone := os.Remove(f.Name()); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}()
	w := bufio.NewWriterSize(f, 256<<10)
	if err := errors.Join(write(w), w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, replaces nothing that has got the name meanwhile; some
	// file systems have none.
	err = os.Link(f.Name(), path)
	switch {
	case errors.Is(err, fs.ErrExist):
		return taken
	case err != nil:
		if err := os.Rename(f.Name(), path); err != nil {
			return err
		}
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
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
	if passphrase == "" || cfg.Storage.Key != "" || cfg.Database.IsSQLite() {
		if to.Keys, err = StorageBox(cfg); err != nil {
			return done, err
		}
	}
	if passphrase == "" {
		secret.Box = to.Keys
	}
	if to.DB, err = openDatabase(ctx, cfg, logger, nil, restoreTimeout); err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, to.DB.Close()) }()
	if err := Migrate(ctx, to.DB, logger); err != nil {
		return done, err
	}
	if done, err = backup.Restore(ctx, file, secret, to); err != nil {
		return done, err
	}
	trail, err := audit.New(audit.Config{Store: sqlstore.New(to.DB), Now: time.Now, Rand: rand.Reader, Logger: logger, Registerer: prometheus.NewRegistry()})
	if err != nil {
		return done, err
	}
	trail.Record(ctx, store.AuditEvent{Action: "storage.restore", Outcome: audit.OK, Detail: "backup of " + done.Created.Format(time.RFC3339)})
	return done, nil
}
