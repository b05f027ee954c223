package main

import (
	"crypto/rand"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/password"
)

func newHashPassword() *cobra.Command {
	return &cobra.Command{
		Use:   "hash-password",
		Short: "Hash a password for an init file",
		Long: `Hash a password, for password_hash in an init file. The hash is an Argon2id PHC
string of the cost that the configuration says (password.memory, …).

The password is asked for on the terminal, or read from standard input.`,
		Example: `  watchword hash-password
  watchword hash-password < /run/secrets/password`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			hasher, err := password.New(password.Config{
				Memory:      int(cfg.Password.Memory),
				Iterations:  cfg.Password.Iterations,
				Parallelism: cfg.Password.Parallelism,
				Workers:     1,
				Rand:        rand.Reader,
			})
			if err != nil {
				return err
			}
			plain, err := readPassword(cmd)
			if err != nil {
				return err
			}
			prepared, err := password.PrepareNew(plain)
			if err != nil {
				return err
			}
			hash, err := hasher.Hash(cmd.Context(), prepared)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), hash)
			return err
		},
	}
}
