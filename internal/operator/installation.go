package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/backup"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/store"
)

// Installation returns the id that all replicas of a database share, and no others. It is in the
// names of what they keep in Redis. It is made at the first call; but the installation of a
// version that made none has no id, "", so that its sessions in Redis stay where they are and
// replicas of both versions find them.
func Installation(ctx context.Context, s store.Store) (id string, err error) {
	id, err = s.Setting(ctx, backup.InstallationSetting)
	if errors.Is(err, store.ErrNotFound) {
		var users []store.User
		if users, err = s.Users(ctx, store.Page{Limit: 1}); err == nil {
			if len(users) == 0 {
				id = backup.NewInstallation()
			}
			// If another process has been faster, its id is returned.
			id, err = s.CreateSetting(ctx, backup.InstallationSetting, id)
		}
	}
	if err != nil {
		return "", fmt.Errorf("the installation's id: %w", err)
	}
	if strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return "", fmt.Errorf("the setting %s is %q; it may have lower-case letters, digits and hyphens", backup.InstallationSetting, id)
	}
	return id, nil
}

// Separate makes the copy of a database that cfg names an installation of its own: see
// backup.Separate. No replica may run on the copy.
func Separate(ctx context.Context, cfg *config.Config, logger *slog.Logger) (err error) {
	if err := databaseThere(cfg); err != nil {
		return err
	}
	db, err := openDatabase(ctx, cfg, nil, logger, nil, restoreTimeout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := UpdateSchema(ctx, db, logger); err != nil {
		return err
	}
	if err := backup.Separate(ctx, db); err != nil {
		return err
	}
	return record(ctx, db, logger, store.AuditEvent{Action: "storage.separate", Outcome: audit.OK})
}
