package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
)

func newStorage() *cobra.Command {
	return group(&cobra.Command{
		Use:   "storage",
		Short: "Change the storage key",
		Long: `Change the storage key, under which private keys are encrypted in the database.
docs/storage.md tells how, step by step.`,
		Example: "  watchword storage rekey",
	}, newStorageRekey())
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
