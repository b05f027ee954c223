package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
)

// errCanary is the status of a canary that found something wrong; what, stands in the
// table already.
var errCanary = errors.New("not everybody refuses what was taken back in time")

func newCanary() *cobra.Command {
	var username string
	cmd := &cobra.Command{
		Use:   "canary [URL...]",
		Short: "Measure how soon a logout is refused everywhere",
		Long: `Log a user in at the first replica, have every replica and a resource server accept
the token, log out, and measure until each of them refuses it.

The replicas are those that are named by their base URLs, or that the cluster knows
(cluster.static_peers, or cluster.advertise_url of each), or the one node at
server.public_url. The password is read from the terminal or from standard input. Any
user will do, without any rights.

It ends with the status 1 if somebody does not accept the token, or not refuse it
within 10 seconds. To have a node measure all the time, set telemetry.canary.`,
		Example: `  watchword canary --username canary
  watchword canary --username canary https://auth-0 https://auth-1 < password.txt`,
		Args: arguments(0, 256),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needAll(cmd, "username"); err != nil {
				return err
			}
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			replicas, err := canaryReplicas(cmd, args)
			if err != nil {
				return err
			}
			password, err := readSecret(cmd, "password", false)
			if err != nil {
				return err
			}
			results, err := app.Canary(cmd.Context(), cfg, replicas, username, password)
			if err != nil {
				return err
			}
			table, wrong := newTable(cmd.OutOrStdout(), "WHO", "REFUSED AFTER"), false
			for _, r := range results {
				after := r.Refused.Round(time.Millisecond).String()
				if r.Err != nil {
					after, wrong = r.Err.Error(), true
				}
				table.row(r.Name, after)
			}
			if err := table.flush(); err != nil || !wrong {
				return err
			}
			return errCanary
		},
	}
	cmd.Flags().StringVar(&username, "username", "", "`name` of the user who logs in and out")
	return cmd
}

// canaryReplicas are those that are named. Only if none is, the database is opened to
// see whom the cluster knows.
func canaryReplicas(cmd *cobra.Command, named []string) (replicas []string, err error) {
	for _, base := range named {
		replicas = append(replicas, strings.TrimRight(base, "/"))
	}
	if len(replicas) > 0 {
		return replicas, nil
	}
	err = with(cmd, func(ctx context.Context, p *app.Parts, cfg *config.Config) (err error) {
		replicas, err = p.ReplicaURLs(ctx, cfg)
		return err
	})
	return replicas, err
}
