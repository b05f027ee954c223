package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/store"
)

func newCluster() *cobra.Command {
	return group(&cobra.Command{
		Use:   "cluster",
		Short: "Show the replicas of a cluster",
		Long: `Show the replicas of a cluster. They share a database and accept each other's tokens.
docs/high-availability.md tells how to set one up.`,
		Example: "  watchword cluster status",
	}, newClusterStatus())
}

func newClusterStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show each replica, its keys, and what it has seen of the others",
		Long: `Show each replica, its keys, and what it has seen of the others, as their registry in
the database has it. SEEN is the version of the registry that a replica has taken
in; UNSEEN counts keys that it has yet to. CLOCK is by how much its clock is ahead
of the database's, with the time that its last word took on the way. CONFIG must be
the same for all. SECRETS are the kids of the signing secrets that a replica accepts,
of which all must have one in common.

A replica is silent when it was not heard of for 7 seconds, and gone when only keys
of its are left, which are valid until their last token has expired.`,
		Example: `  watchword cluster status`,
		Args:    arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return reading(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				if !cfg.Cluster.Enabled {
					return errors.New("cluster.enabled is false: this replica is alone")
				}
				status, err := cluster.ReadStatus(ctx, p.Store.(store.Registry), cfg.Cluster.Secret)
				if err != nil {
					return err
				}
				return printCluster(cmd, status)
			})
		},
	}
}

func printCluster(cmd *cobra.Command, s cluster.Status) error {
	out := cmd.OutOrStdout()
	replicas := newTable(out, "REPLICA", "STATE", "VERSION", "UPTIME", "HEARD", "CLOCK", "SEEN", "UNSEEN", "CONFIG", "SECRETS", "URL")
	keys := newTable(out, "KID", "STATE", "SIGNS FROM", "SIGNS UNTIL", "VERIFIES UNTIL")
	for _, r := range s.Replicas {
		if r.Standing == cluster.Gone {
			replicas.row(r.Instance, string(r.Standing), "", "", "", "", "", "", "", "", "")
		} else {
			replicas.row(r.Instance, string(r.Standing), r.Version, r.ClockAt.Sub(r.StartedAt).Round(time.Second).String(),
				s.AsOf.Sub(r.BeatAt).Round(100*time.Millisecond).String()+" ago", fmt.Sprintf("%+dms", r.Clock.Milliseconds()),
				fmt.Sprintf("%d/%d", r.Seen, s.Version), strconv.Itoa(len(r.Unseen)), r.Config, strings.Join(r.Secrets, ","), r.URL)
		}
		for _, k := range r.Keys {
			keys.row(k.ID, string(k.Phase), when(k.ActivateAt), when(k.RetireAt), when(k.RemoveAt))
		}
	}
	if err := replicas.flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if err := keys.flush(); err != nil {
		return err
	}
	if s.Rejected > 0 {
		fmt.Fprintf(out, "\nRows of the registry that are not vouched for by the cluster's secret: %d\n", s.Rejected)
	}
	return nil
}
