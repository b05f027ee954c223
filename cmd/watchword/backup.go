package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/backup"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
)

// minPassphrase is the least length of one: a file can be tried against for ever.
const minPassphrase = 12

func newBackup() *cobra.Command {
	var usePassphrase bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write everything in the database into an encrypted file",
		Long: `Write everything in the database into a new, encrypted file: users with their
password hashes, groups, claims, signing keys, the revocation log, the audit trail
and the settings, and the sessions if they are in the database (state.backend sql or
tiered). It is one state of the database; replicas may run meanwhile.

The file is encrypted with the storage key, which is not in it: keep the key
somewhere else. With --passphrase it is encrypted with a passphrase, which is asked
for or read from standard input. The signing keys in it are encrypted with the
storage key all the same.`,
		Example: `  watchword backup /backups/watchword-2026-03-01.backup
  watchword backup --passphrase watchword.backup < passphrase.txt`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			passphrase, err := askPassphrase(cmd, usePassphrase, true)
			if err != nil {
				return err
			}
			done, err := operator.Backup(cmd.Context(), cfg, app.NewLogger(quiet, os.Stderr), args[0], passphrase)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Wrote %s:\n", args[0])
			showContents(cmd, done)
			if cfg.StateBackend() == config.StateRedis {
				fmt.Fprintln(cmd.OutOrStdout(), "The sessions are in Redis and not in this backup.")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&usePassphrase, "passphrase", false, "encrypt with a passphrase instead of the storage key")
	return cmd
}

func newRestore() *cobra.Command {
	var usePassphrase, signOut bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Write a backup into an empty database",
		Long: `Write a backup into the configured database, which must be empty, with no
replica running on it. It may be of another kind than the one that the backup is of.
The file is checked to its end first, and all of it is written, or nothing.

The storage key must be the one that the backup was made with, or that one must be
among storage.previous_keys (AUTH_STORAGE_KEY_PREVIOUS). For a backup of SQLite
without a storage key it is in the file .key beside the database.

After a move, all users stay signed in if no replica has run on the old database
since the backup. Revocations that came after the backup are not in it. So if
replicas went on running, or you cannot be sure, say --sign-out: every session and
every token from before is refused then, and all users sign in again.`,
		Example: `  DATABASE_URL=postgres://watchword:…@db/watchword \
    AUTH_STORAGE_KEY_FILE=data/watchword.db.key watchword restore watchword.backup
  watchword restore --sign-out watchword.backup`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			passphrase, err := askPassphrase(cmd, usePassphrase, false)
			if err != nil {
				return err
			}
			done, err := operator.Restore(cmd.Context(), cfg, app.NewLogger(quiet, os.Stderr), args[0], passphrase, signOut)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Restored the backup of %s:\n", done.Created.Format(time.RFC3339))
			showContents(cmd, done)
			if cfg.StateBackend() == config.StateRedis {
				fmt.Fprintln(cmd.OutOrStdout(), "The sessions are in Redis and not in the backup. If Redis has those of another time,\nflush it (FLUSHDB) before a replica starts, or sign all users out with --sign-out.")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&usePassphrase, "passphrase", false, "the backup was made with a passphrase")
	cmd.Flags().BoolVar(&signOut, "sign-out", false, "leave out sessions and signing keys: all users have to sign in again")
	return cmd
}

// askPassphrase returns "" when none is to be used.
func askPassphrase(cmd *cobra.Command, use, isNew bool) (string, error) {
	if !use {
		return "", nil
	}
	passphrase, err := readSecret(cmd, "passphrase", isNew)
	switch {
	case err != nil:
		return "", err
	case isNew && len([]rune(passphrase)) < minPassphrase:
		return "", fmt.Errorf("a passphrase has at least %d characters", minPassphrase)
	case passphrase == "":
		return "", backup.ErrPassphrase
	}
	return passphrase, nil
}

// showContents says what a backup has, in the words of people.
func showContents(cmd *cobra.Command, done backup.Summary) {
	for _, c := range []struct{ what, table string }{
		{"users", "users"}, {"groups", "usergroups"}, {"claims", "claims"}, {"signing keys", "signing_keys"},
		{"revocations", "revocations"}, {"audit events", "audit_events"}, {"sessions and the like", "state_records"},
	} {
		fmt.Fprintf(cmd.OutOrStdout(), "%8d %s\n", done.Rows[c.table], c.what)
	}
}
