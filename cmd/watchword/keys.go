package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/token"
)

func newKeys() *cobra.Command {
	return group(&cobra.Command{
		Use:   "keys",
		Short: "List, rotate and revoke signing keys",
		Long: `List, rotate and revoke signing keys.

Keys rotate by themselves (tokens.key_duration). Rotate by hand when you would
rather have a new one; revoke when a private key may have become known.
docs/signing-keys.md has the steps for each source of keys (tokens.keys).`,
		Example: `  watchword keys list
  watchword keys rotate
  watchword keys revoke auth-0-NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs`,
	}, newKeysList(), newKeysRotate(), newKeysRevoke(), newKeysAdopt(), newKeysCreate())
}

func newKeysList() *cobra.Command {
	var asJSON, asPEM bool
	cmd := &cobra.Command{
		Use:   "list [KID]",
		Short: "List the signing keys and the state of each",
		Long: `List the signing keys, where each comes from (tokens.keys), its state, and in how
many seconds the next state begins. The states are published (in the key set, signs
nothing yet), active (signs), retiring (in the key set until the last token it signed
has expired), removed, and revoked. A row that this configuration does not
authenticate is not believed; nor is one of another source, by a replica alone. An
active key in an HSM or at a signer goes on for as long as there is no newer one.
Keys in memory have their state by the clock: one that is active signs nothing any more
if its replica has stopped, which "watchword cluster status" shows.

The signing secrets of this configuration are listed, too, with a line for each
algorithm: active (signs, when all replicas accept it), accepted, removed or revoked.

With --pem the public keys of the key set are written (published, active and retiring),
each in PEM (RFC 7468) after a line with its kid, its algorithm and its state. With a KID,
only that key: with --pem nothing but its PEM, for a file. A KID that begins with a hyphen
stands after "--".`,
		Example: `  watchword keys list
  watchword keys list --json
  watchword keys list --pem
  watchword keys list --pem -- auth-0-NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs`,
		Args: arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return reading(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				keys, err := p.SigningKeys(ctx, cfg, time.Now())
				if err != nil {
					return err
				}
				if len(args) > 0 {
					keys = slices.DeleteFunc(keys, func(k operator.SigningKey) bool { return k.ID != args[0] })
					if len(keys) == 0 {
						return keyring.ErrUnknownKey
					}
				}
				if asPEM {
					return writePEM(cmd.OutOrStdout(), keys, len(args) > 0)
				}
				if asJSON {
					lines := json.NewEncoder(cmd.OutOrStdout())
					for _, k := range keys {
						if err := lines.Encode(k); err != nil {
							return err
						}
					}
					return nil
				}
				t := newTable(cmd.OutOrStdout(), "KID", "ALGORITHM", "SOURCE", "STATE", "SIGNS FROM", "SIGNS UNTIL", "VERIFIES UNTIL", "NEXT STEP IN")
				for _, k := range keys {
					next := ""
					if k.Next != "" {
						next = fmt.Sprintf("%d s: %s", k.NextIn, k.Next)
					}
					t.row(k.ID, k.Algorithm, k.Source, k.State, when(k.SignsFrom), when(k.SignsUntil), when(k.VerifiesUntil), next)
				}
				return t.flush()
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write each key as JSON on a line of its own")
	cmd.Flags().BoolVar(&asPEM, "pem", false, "write the public keys of the key set in PEM")
	cmd.MarkFlagsMutuallyExclusive("json", "pem")
	return cmd
}

// writePEM writes those of the keys that are in the key set; alone, without the line that says
// which key it is, and with an error if the one key is not.
func writePEM(w io.Writer, keys []operator.SigningKey, alone bool) error {
	var text bytes.Buffer
	for _, k := range keys {
		if !k.InKeySet() {
			if alone {
				return fmt.Errorf("the key is %s, and not in the key set", k.State)
			}
			continue
		}
		key, err := k.Public()
		if err != nil {
			return err
		}
		block, err := token.PublicPEM(key)
		if err != nil {
			return err
		}
		if !alone {
			fmt.Fprintf(&text, "# %s %s %s\n", key.ID, key.Algorithm, k.State)
		}
		text.Write(block)
	}
	_, err := w.Write(text.Bytes())
	return err
}

func newKeysRotate() *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the signing keys",
		Long: `Replace the signing keys of every running replica. Nothing becomes invalid: a new key
is published first, signs when it has been in the key set for
tokens.key_publish_ahead, and the old one verifies until its last token has expired.

With --now the new key signs a little more than tokens.key_set_max_age later. Many
verifiers keep a key set for up to 20 minutes, whatever its max-age says, and do not
ask for a key that they do not know: they refuse all new tokens until they fetch the
key set again. A key that may have become known is not rotated but revoked.

In an HSM and at a remote signer, the newest key that was not used before follows:
make one there first. If there is none, the present key goes on. Signing secrets are
replaced in the configuration.`,
		Example: "  watchword keys rotate\n  watchword keys rotate --now",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				if cfg.KeysIn() == config.KeysSecret {
					return errors.New("tokens.keys: it is secret: change tokens.secret, and put the present one into tokens.previous_secrets (docs/signing-keys.md)")
				}
				rotate, wait := p.RotateKeys, keyring.Following(cfg.Tokens.KeyDuration, cfg.Tokens.KeySetMaxAge, cfg.PublishAhead())
				if now {
					rotate, wait = p.RotateKeysAtOnce, keyring.Ripening(cfg.Tokens.KeyDuration, cfg.Tokens.KeySetMaxAge)
				}
				if err := rotate(ctx); err != nil {
					return err
				}
				switch keys := cfg.KeysIn(); keys {
				case config.KeysPKCS11, config.KeysRemote:
					fmt.Fprintf(cmd.OutOrStdout(), "Running replicas take the newest key that was not used before; it signs when it has been in the key set for %s.\n", wait)
					fmt.Fprintf(cmd.OutOrStdout(), "While there is none, the present key goes on: make one (docs/signing-keys.md says how, with tokens.keys %s).\n", keys)
				default:
					fmt.Fprintf(cmd.OutOrStdout(), "Running replicas make new keys now; these sign when they have been in the key set for %s.\n", wait)
				}
				if now {
					fmt.Fprintln(cmd.OutOrStdout(), "Verifiers that keep a key set for longer refuse new tokens until they fetch it again.")
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "do not wait for verifiers that keep a key set for long")
	return cmd
}

func newKeysRevoke() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "revoke KID",
		Short: "Revoke a signing key and every token it signed",
		Long: `Revoke a signing key, or a signing secret, that may have become known, and every token
that it signed: their holders have to log in or renew. Running replicas refuse them within
revocation.max_staleness and sign with another key at once. The reason goes into the
audit trail, which keeps 500 characters of it. A KID that begins with a hyphen stands
after "--".`,
		Example: `  watchword keys list
  watchword keys revoke auth-0-NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs \
    --reason "the disk of auth-0 was stolen"
  watchword keys revoke --reason "it was in a repository" -- -UYdR8GnQvWl8jY5bT3H0Q`,
		Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return with(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				if err := p.RevokeKey(ctx, cfg, args[0], reason); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Revoked the key %s and every token it signed.\n", args[0])
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit trail")
	return cmd
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
