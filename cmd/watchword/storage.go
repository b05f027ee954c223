package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
)

func newStorage() *cobra.Command {
	return group(&cobra.Command{
		Use:   "storage",
		Short: "Change the storage key, or separate a copy of the database",
		Long: `Change the storage key, under which private keys are encrypted in the database, or
make the copy of a database an installation of its own. docs/storage.md tells how,
step by step.`,
		Example: "  watchword storage rekey\n  watchword storage separate",
	}, newStorageRekey(), newStorageSeparate())
}

func newStorageSeparate() *cobra.Command {
	return &cobra.Command{
		Use:   "separate",
		Short: "Make the copy of a database an installation of its own",
		Long: `Make the copy of a database, such as one for staging, an installation of its own. Its
users stay, with their passwords and rights. It gets another id and another revocation
log; its sessions, its signing keys and its list of replicas are deleted. So it touches
nothing of the original's in a Redis that both use, asks none of the original's
replicas, and neither accepts the other's tokens.

Run it on the copy, before a replica runs there. What it deletes is lost. It is not
needed after restore --sign-out, which does the same.`,
		Example: `  DATABASE_URL=postgres://watchword:…@db/staging watchword storage separate`,
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			if err := operator.Separate(cmd.Context(), cfg, app.NewLogger(quiet, os.Stderr)); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "This database is an installation of its own. All users have to sign in again.")
			return nil
		},
	}
}

func newStorageRekey() *cobra.Command {
	return &cobra.Command{
		Use:   "rekey",
		Short: "Encrypt everything anew under the storage key in effect",
		Long: `Encrypt everything in the database anew that is encrypted under one of
storage.previous_keys (AUTH_STORAGE_KEY_PREVIOUS), under storage.key
(AUTH_STORAGE_KEY). Replicas may run meanwhile, if all of them have both keys.
It may be stopped at any moment and run again; it goes on where it was.`,
		Example: `  AUTH_STORAGE_KEY=$NEW AUTH_STORAGE_KEY_PREVIOUS=$OLD watchword storage rekey`,
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				done, err := p.Rekey(ctx, cfg)
				changed := 0
				for _, d := range done {
					changed += d.Changed
					fmt.Fprintf(cmd.OutOrStdout(), "%s: %d encrypted anew, %d were under this key already\n", d.Kind, d.Changed, d.Current)
				}
				switch {
				case err != nil:
					return err
				case changed > 0:
					fmt.Fprintln(cmd.OutOrStdout(), "Keep the previous keys until every replica has been started with the new key as its\nstorage.key and another run finds nothing to encrypt anew.")
				default:
					fmt.Fprintln(cmd.OutOrStdout(), "Nothing needs a previous key any more. Once every replica has been started with this\nkey as its storage.key, the previous keys can be dropped.")
				}
				return nil
			})
		},
	}
}
