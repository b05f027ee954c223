package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/config"
)

func newRoot() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "watchword",
		Short: "Issue tokens that every service recognises, and revoke them everywhere",
		Long: `Watchword is an authentication and token service. Without any configuration it
serves on http://127.0.0.1:8080 and keeps its data in data/watchword.db.

Settings come from a YAML file and from the environment; "watchword config" shows
those in effect. The commands other than serve work on the same database, whether
a replica is running on it or not.`,
		Example: `  watchword serve
  watchword user add alice --admin
  watchword config check /etc/watchword.yaml`,
		SilenceErrors: true,
		SilenceUsage:  true,
	},
		newServe(), newConfig(), newMigrate(), newBackup(), newRestore(), newUser(), newImport(), newGroup(), newClaim(),
		newAudit(), newLimits(), newKeys(), newCluster(), newToken(), newCanary(), newBench(), newDoctor(), newStorage(), newHashPassword(), newVersion(),
	)
	// Known to every command before the next word is looked at, which is no value of it.
	root.PersistentFlags().BoolP("help", "h", false, "show help")
	root.PersistentFlags().String("config", "", "configuration `file` (default: $WATCHWORD_CONFIG, or watchword.yaml if it is there)")
	root.Version = versionLine()
	root.SetVersionTemplate("{{.Version}}\n")
	root.Flags().Bool("version", false, "show the version")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return misused(cmd, err) })
	return root
}

// execute runs the command line. To a word that is no command, -h is no answer.
func execute(ctx context.Context) error {
	root := newRoot()
	var misread error
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		words := cmd.Flags().Args()
		if !cmd.HasSubCommands() || len(words) == 0 {
			help(cmd, args)
		} else if misread = cmd.ValidateArgs(words); misread == nil {
			misread = cmd.RunE(cmd, words) // of group
		}
	})
	return cmp.Or(root.ExecuteContext(ctx), misread)
}

// group makes a command that only has others under it: alone it shows its help,
// with a word that is none of them it is an error.
func group(cmd *cobra.Command, commands ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := fmt.Errorf("%q has no command %q", cmd.CommandPath(), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, near[0])
		}
		return misused(cmd, err)
	}
	cmd.AddCommand(commands...)
	return cmd
}

// arguments makes a wrong number of arguments a usage error that names them.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return misused(cmd, fmt.Errorf("an argument is missing: %s", cmd.UseLine()))
		case len(args) > most:
			return misused(cmd, fmt.Errorf("there is an argument too many, %q: %s", args[most], cmd.UseLine()))
		}
		return nil
	}
}

// needAny makes it a usage error that none of the flags was given.
func needAny(cmd *cobra.Command, flags ...string) error {
	if slices.ContainsFunc(flags, cmd.Flags().Changed) {
		return nil
	}
	return misused(cmd, fmt.Errorf("nothing to change was named: --%s", strings.Join(flags, ", --")))
}

// needAll makes it a usage error that one of the flags was not given.
func needAll(cmd *cobra.Command, flags ...string) error {
	for _, f := range flags {
		if !cmd.Flags().Changed(f) {
			return misused(cmd, fmt.Errorf("--%s is missing", f))
		}
	}
	return nil
}

func misused(cmd *cobra.Command, err error) error {
	return &usageError{err, fmt.Sprintf("Run %q for help.", cmd.CommandPath()+" -h")}
}

// loadConfig reads the configuration that the command line and the environment
// name.
func loadConfig(cmd *cobra.Command) (*config.Config, error) {
	return config.Load(configFile(cmd), os.Environ())
}

// configFile is the file in effect; "" for none.
func configFile(cmd *cobra.Command) string {
	return config.FindFile(cmd.Flag("config").Value.String(), os.Environ())
}
