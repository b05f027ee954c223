package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
)

func newKeysCreate() *cobra.Command {
	var inHSM bool
	var algorithm string
	cmd := &cobra.Command{
		Use:   "create --pkcs11",
		Short: "Make a signing key in an HSM",
		Long: `Make a signing key in the HSM that tokens.pkcs11 names, under the label
tokens.pkcs11.key. Its private half never leaves the HSM: it is sensitive, not
extractable, and for signatures alone. Without --algorithm, one key is made for
each algorithm that the configuration signs with.

Replicas with tokens.keys pkcs11 sign with the new key from their next rotation
on. The other sources of keys make theirs by themselves.`,
		Example: `  watchword keys create --pkcs11
  watchword keys create --pkcs11 --algorithm RS256
  watchword keys rotate`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !inHSM {
				return misused(cmd, errors.New("keys are made in an HSM alone: say --pkcs11"))
			}
			return with(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) (err error) {
				token, err := operator.OpenHSM(ctx, func() *config.Config { return cfg }, nil)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, token.Close()) }()
				algorithms := cfg.SigningAlgorithms()
				if algorithm != "" {
					algorithms = []string{algorithm}
				}
				for _, a := range algorithms {
					kid, err := p.CreateKey(ctx, token, a)
					if err != nil {
						return err
					}
					fmt.Fprintf(cmd.OutOrStdout(), "Made the key %s for %s.\n", kid, a)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&inHSM, "pkcs11", false, "in the HSM of tokens.pkcs11")
	cmd.Flags().StringVar(&algorithm, "algorithm", "", "what it signs by: ES256, ES384, ES512, RS256, PS256 or EdDSA (default: those of the configuration)")
	return cmd
}
