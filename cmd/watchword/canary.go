package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/canary"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
)

func newCanary() *cobra.Command {
	var username string
	cmd := &cobra.Command{
		Use:   "canary [URL...]",
		Short: "Measure how soon a logout is refused everywhere",
		Long: `Log a user in at the first replica, have every replica and a resource server accept
the token, log out, and measure until each of them refuses it.

The replicas are those that are named by their base URLs, or that the cluster knows
(cluster.static_peers, or cluster.advertise_url of each), or the single replica at
server.public_url. The password is read from the terminal or from standard input. Any
user will do, without any rights.

The password and the token are sent to the first replica alone. The others are sent
the token encrypted under cluster.secret, which must be set as it is at the replicas.

It ends with the status 1 if one of them does not accept the token, or does not refuse
it within 10 seconds. To have a replica measure all the time, set telemetry.canary.`,
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
			results, err := operator.Canary(cmd.Context(), cfg, replicas, username, password)
			if err != nil {
				return err
			}
			table := newTable(cmd.OutOrStdout(), "WHO", "REFUSED AFTER")
			for _, r := range results {
				after := r.Refused.Round(time.Millisecond).String()
				if r.Err != nil {
					after = r.Err.Error()
				}
				table.row(r.Name, after)
			}
			if err := table.flush(); err != nil {
				return err
			}
			return canaryVerdict(results)
		},
	}
	cmd.Flags().StringVar(&username, "username", "", "`name` of the user who logs in and out")
	return cmd
}

// canaryVerdict returns what is wrong; nil: nothing. A watcher that did not accept the token
// has shown nothing about how soon it is refused.
func canaryVerdict(results []canary.Result) error {
	var wrong []error
	late := false
	for _, r := range results {
		if errors.Is(r.Err, canary.ErrNotAccepted) {
			wrong = append(wrong, fmt.Errorf("%s: %w", r.Name, r.Err))
		} else if r.Err != nil {
			late = true
		}
	}
	if late {
		wrong = append(wrong, errors.New("not all of them refuse the revoked token in time"))
	}
	return errors.Join(wrong...)
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
	err = with(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) (err error) {
		replicas, err = p.ReplicaURLs(ctx, cfg)
		return err
	})
	return replicas, err
}
