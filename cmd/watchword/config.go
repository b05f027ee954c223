package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
)

func newConfig() *cobra.Command {
	show := &cobra.Command{
		Use:   "config",
		Short: "Show the settings in effect",
		Long: `Show the settings in effect as a YAML file: the defaults, over them the
configuration file, over it the environment. Secrets are masked.

docs/configuration.md says what each of them means.`,
		Example: `  watchword config
  watchword config --config /etc/watchword.yaml
  WATCHWORD_LOG_LEVEL=debug watchword config
  watchword config check /etc/watchword.yaml`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			return cfg.Print(cmd.OutOrStdout())
		},
	}
	show.AddCommand(&cobra.Command{
		Use:   "check [FILE]",
		Short: "Say whether a configuration can be used",
		Long: `Say whether a configuration can be used: everything that is wrong with it, each
with its line, and what works but is probably not meant. Without FILE it is the
one that "watchword serve" would use here; with another FILE it also says what
would change, and which of it needs a restart; the file in effect itself is not
compared, because it is not known here what a running replica has read of it. The
environment counts as well.

It ends with the status 1 if the configuration cannot be used.`,
		Example: `  watchword config check
  watchword config check /etc/watchword.yaml`,
		Args: arguments(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := configFile(cmd)
			if len(args) == 1 {
				file = args[0]
			}
			cfg, err := config.Load(file, os.Environ())
			if err != nil {
				return err
			}
			if err := app.CheckPages(cfg.Pages); err != nil {
				return fmt.Errorf("the configuration cannot be used: %w", err)
			}
			for _, w := range cfg.Warnings() {
				fmt.Fprintf(cmd.OutOrStdout(), "warning: %s\n", w)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "The configuration can be used.")
			if current := configFile(cmd); current != "" && current != file {
				return compare(cmd.OutOrStdout(), current, cfg)
			}
			return nil
		},
	})
	return show
}

// compare says what differs from the configuration in a file.
func compare(w io.Writer, current string, next *config.Config) error {
	now, err := config.Load(current, os.Environ())
	if err != nil {
		fmt.Fprintf(w, "It cannot be compared with %s, which cannot be used:\n", current)
		return err
	}
	changes := now.Changes(next)
	if len(changes) == 0 {
		fmt.Fprintf(w, "It changes nothing against %s.\n", current)
		return nil
	}
	fmt.Fprintf(w, "Against %s it changes:\n", current)
	for _, c := range changes {
		what := "needs a restart"
		if c.Live {
			what = "is taken over by a running replica"
		}
		fmt.Fprintf(w, "  %s: %q, not %q (%s)\n", c.Key, c.New, c.Old, what)
	}
	return nil
}
