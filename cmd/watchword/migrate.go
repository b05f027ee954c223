package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/operator"
)

func newMigrate() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema up to date",
		Long: `Bring the database's schema to what this version needs. "watchword serve" and the
other commands do so by themselves; run it beforehand when the service's own
database user may not change the schema. Of several that run at once, one does the
work and the others wait.`,
		Example: `  watchword migrate --dry-run
  DATABASE_URL=postgres://owner:…@db/watchword watchword migrate`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			migrations, err := operator.Migrate(cmd.Context(), cfg, app.NewLogger(quiet, os.Stderr), dryRun)
			for _, m := range migrations {
				if dryRun {
					fmt.Fprintf(cmd.OutOrStdout(), "pending %s\n", m.Name)
				} else {
					fmt.Fprintf(cmd.OutOrStdout(), "applied %s (%s)\n", m.Name, m.Took.Round(time.Millisecond))
				}
			}
			if err == nil && len(migrations) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "The schema is up to date.")
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be applied")
	return cmd
}
