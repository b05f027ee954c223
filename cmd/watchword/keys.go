package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/operator"
)

func newKeys() *cobra.Command {
	return group(&cobra.Command{
		Use:   "keys",
		Short: "List, rotate and revoke signing keys",
		Long: `List, rotate and revoke signing keys.

Keys rotate by themselves (tokens.key_duration). Rotate by hand when you would
rather have a new one; revoke when a private key may have become known.`,
		Example: `  watchword keys list
  watchword keys rotate
  watchword keys revoke auth-0-NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs`,
	}, newKeysList(), newKeysRotate(), newKeysRevoke(), newKeysAdopt())
}

func newKeysList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the signing keys and the state of each",
		Long: `List the signing keys and the state of each: published (in the key set,
signs nothing yet), active (signs), retiring (in the key set until the last token
it signed has expired), removed, or revoked.`,
		Example: "  watchword keys list",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return reading(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				keys, err := p.Store.Keys(ctx)
				if err != nil {
					return err
				}
				t := newTable(cmd.OutOrStdout(), "KID", "ALGORITHM", "STATE", "SIGNS FROM", "SIGNS UNTIL", "VERIFIES UNTIL")
				for _, k := range keys {
					t.row(k.ID, k.Algorithm, string(keyring.State(k, time.Now())), when(k.ActivateAt), when(k.RetireAt), when(k.RemoveAt))
				}
				return t.flush()
			})
		},
	}
}

func newKeysRotate() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Replace the signing keys",
		Long: `Replace the signing keys of every running replica. Nothing becomes invalid: a new key
is published first, signs a little more than tokens.key_set_max_age later, and the
old one verifies until its last token has expired.`,
		Example: "  watchword keys rotate",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				if err := p.RotateKeys(ctx); err != nil {
					return err
				}
				ripening := keyring.Ripening(cfg.Tokens.KeyDuration, cfg.Tokens.KeySetMaxAge)
				fmt.Fprintf(cmd.OutOrStdout(), "Running replicas make new keys now; these sign when they have been in the key set for %s.\n", ripening)
				return nil
			})
		},
	}
}

func newKeysRevoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke KID",
		Short: "Revoke a signing key and every token it signed",
		Long: `Revoke a signing key that may have become known, and every token that it signed:
their holders have to log in or renew. Running replicas refuse them within
revocation.max_staleness and sign with another key at once.`,
		Example: `  watchword keys list
  watchword keys revoke auth-0-NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				if err := p.RevokeKey(ctx, cfg, args[0]); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Revoked the key %s and every token it signed.\n", args[0])
				return nil
			})
		},
	}
}

func newKeysAdopt() *cobra.Command {
	return &cobra.Command{
		Use:   "adopt",
		Short: "Take over the signing keys of an older version",
		Long: `Take over the signing keys that a replica of an older version has left in the
database (tokens.keys: database). That version did not authenticate what the
database says about a key: its times, and that it was revoked. Whoever can write
the database could have changed that, so look at them first. Replicas in a cluster
need no adoption; they replace such keys by themselves.

Run it once, when the older version has stopped and before this one starts. Keys
that this version has made are never adopted.`,
		Example: `  watchword keys list
  watchword keys adopt`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				kids, err := p.AdoptKeys(ctx, cfg)
				if err != nil {
					return err
				}
				for _, kid := range kids {
					fmt.Fprintf(cmd.OutOrStdout(), "Adopted the key %s.\n", kid)
				}
				if len(kids) == 0 {
					fmt.Fprintln(cmd.OutOrStdout(), "There is no key of an older version.")
				}
				return nil
			})
		},
	}
}
