package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/operator"
)

func newLimits() *cobra.Command {
	return group(&cobra.Command{
		Use:   "limits",
		Short: "Show and lift what makes accounts and addresses wait",
		Long: `Show the accounts and addresses at which so many logins have failed that attempts wait,
and lift that. Running replicas know of it within a second. docs/limits.md tells what is
counted, and where.`,
		Example: `  watchword limits list
  watchword limits lift --user alice`,
	}, newLimitsList(), newLimitsLift())
}

func newLimitsList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the accounts and addresses that wait",
		Long: `List the accounts at which so many attempts have failed that attempts wait, and the
addresses from which so many have failed. An account waits for one address, or for all
(strangers) from which the user has not signed in during the last 30 days. Names that
nobody has are counted as those of users are, and have no line.`,
		Example: "  watchword limits list\n  watchword limits list --json",
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return limited(cmd, operator.OpenExisting, func(ctx context.Context, by limit.Rights, a limit.Administration) error {
				if asJSON {
					lines := json.NewEncoder(cmd.OutOrStdout())
					return eachWaiting(ctx, by, a, func(w limit.Waiting) error { return lines.Encode(httpapi.LimitListOf(w)) })
				}
				return printWaiting(ctx, cmd, by, a)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "write each page as GET /api/limits answers it, on a line of its own")
	return cmd
}

func printWaiting(ctx context.Context, cmd *cobra.Command, by limit.Rights, a limit.Administration) error {
	out, unnamed := cmd.OutOrStdout(), 0
	t := newTable(out, "ACCOUNT", "ADDRESS", "FAILURES", "SINCE", "WAITS UNTIL")
	row := func(account, address string, f limit.Failures) {
		t.row(account, address, strconv.Itoa(f.Count), when(f.Since), when(f.Until))
	}
	err := eachWaiting(ctx, by, a, func(w limit.Waiting) error {
		for _, one := range w.Accounts {
			address := one.From
			if address == "" {
				address = "strangers"
			}
			row(one.Username, address, one.Failures)
		}
		for _, one := range w.Addresses {
			row("", one.Address, one.Failures)
		}
		unnamed += w.Unnamed
		return nil
	})
	if err != nil {
		return err
	}
	if err := t.flush(); err != nil {
		return err
	}
	if unnamed > 0 {
		fmt.Fprintf(out, "\nAccounts that wait and whose names nobody has: %d\n", unnamed)
	}
	return nil
}

// eachWaiting calls do for each page of what waits.
func eachWaiting(ctx context.Context, by limit.Rights, a limit.Administration, do func(limit.Waiting) error) error {
	for after := ""; ; {
		w, err := a.List(ctx, by, after, limit.MaxPage)
		if err != nil {
			return err
		}
		after, w.Next = w.Next, ""
		if err := do(w); err != nil || after == "" {
			return err
		}
	}
}

func newLimitsLift() *cobra.Command {
	var user, address string
	cmd := &cobra.Command{
		Use:   "lift",
		Short: "Forget what is counted for a user or of an address",
		Long: `Forget every failure and every attempt that is counted for a user, from all addresses; or
of an address, whatever accounts it named. The addresses from which a user has signed in
stay known. IPv6 is counted by /64.`,
		Example: `  watchword limits lift --user alice
  watchword limits lift --address 192.0.2.7
  watchword limits lift --address 2001:db8::/64`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("user") == cmd.Flags().Changed("address") {
				return misused(cmd, errors.New("one of --user and --address is needed"))
			}
			return limited(cmd, operator.Open, func(ctx context.Context, by limit.Rights, a limit.Administration) error {
				lift, what := a.LiftAccount, user
				if cmd.Flags().Changed("address") {
					lift, what = a.LiftAddress, address
				}
				if err := lift(ctx, by, what); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Lifted the limits of %s.\n", what)
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "username or id of a `user`")
	cmd.Flags().StringVar(&address, "address", "", "IP `address`, or a /64 of IPv6")
	return cmd
}

// limited runs an offline command on what the replicas count.
func limited(
	cmd *cobra.Command,
	open func(context.Context, *config.Config, *slog.Logger) (*operator.Parts, error),
	do func(ctx context.Context, by limit.Rights, a limit.Administration) error,
) error {
	return withOpened(cmd, open, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
		closeState, err := p.OpenLimits(ctx, cfg, app.NewLogger(quiet, os.Stderr))
		if err != nil {
			return err
		}
		return errors.Join(do(ctx, p.Directory.LimitRights(directory.System()), p.LimitAdministration()), closeState())
	})
}
