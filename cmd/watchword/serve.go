package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/app"
)

func newServe() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Run the service",
		Long: `Run the service until it is interrupted (Ctrl-C, SIGTERM); then it answers what it
has accepted and ends.

Without any configuration it listens on http://127.0.0.1:8080, keeps its data in
data/watchword.db, and on its first start makes an administrator whose password it
shows once, on the terminal; without one, it is in data/watchword.db.admin-password.

users.init_file names a YAML file of claims, groups and users to make at start. What
it has asked for once is not done again: what you change or remove afterwards stays
so. Add to the file, and the next start makes what is new in it.`,
		Example: `  watchword serve
  watchword serve --config /etc/watchword.yaml
  DATABASE_URL=postgres://watchword:…@db/watchword AUTH_STORAGE_KEY=… watchword serve`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			logger := app.NewLogger(cfg.Log, os.Stderr)
			for _, w := range cfg.Warnings() {
				logger.Warn(w)
			}
			return app.Serve(cmd.Context(), cfg, configFile(cmd), cmd.OutOrStdout(), versionName())
		},
	}
}
