package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/store"
)

func newAudit() *cobra.Command {
	var q audit.Query
	var since, until string
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what",
		Long: `Show the audit trail: who did what, newest event first. An event is shown if it fits
every flag that is given. What is done on the command line has no actor.

Times are written as in RFC 3339, and count in whole milliseconds.`,
		Example: `  watchword audit
  watchword audit --outcome denied --since 2026-11-28T00:00:00Z
  watchword audit --actor 019ac2f8-3b5e-7000-8000-5a2b3c4d5e6f --limit 0
  watchword audit --action user.delete --json`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, flag := range []struct {
				name, text string
				to         *time.Time
			}{{"since", since, &q.Since}, {"until", until, &q.Until}} {
				if !cmd.Flags().Changed(flag.name) {
					continue
				}
				var err error
				if *flag.to, err = time.Parse(time.RFC3339, flag.text); err != nil {
					return misused(cmd, fmt.Errorf("--%s: %q is no time of the form 2026-11-28T00:00:00Z", flag.name, flag.text))
				}
			}
			if limit < 0 {
				return misused(cmd, fmt.Errorf("--limit: %d is no number of events", limit))
			}
			return reading(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				if asJSON {
					lines := json.NewEncoder(cmd.OutOrStdout())
					return eachEvent(ctx, p, q, limit, func(e store.AuditEvent) error { return lines.Encode(httpapi.AuditEventOf(e)) })
				}
				t := newTable(cmd.OutOrStdout(), "TIME", "ACTION", "OUTCOME", "ACTOR", "TARGET", "ADDRESS", "DETAIL")
				err := eachEvent(ctx, p, q, limit, func(e store.AuditEvent) error {
					t.row(when(e.At), e.Action, e.Outcome, e.Actor, e.Target, e.Address, e.Detail)
					return nil
				})
				if err != nil {
					return err
				}
				return t.flush()
			})
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&q.Actor, "actor", "", "only what the user with this `id` did")
	f.StringVar(&q.Action, "action", "", "only this `action`, such as login or user.create")
	f.StringVar(&q.Target, "target", "", "only what was done to what has this `id`")
	f.StringVar(&q.Outcome, "outcome", "", "only this `outcome`: ok, denied or failed")
	f.StringVar(&q.Address, "address", "", "only what a client at this `address` did")
	f.StringVar(&since, "since", "", "no event earlier than this `time`")
	f.StringVar(&until, "until", "", "only events earlier than this `time`")
	f.IntVar(&limit, "limit", audit.DefaultPage, "how `many` events; 0: all")
	f.BoolVar(&asJSON, "json", false, "write each event as JSON on a line of its own")
	return cmd
}

// eachEvent calls do for the newest events that q asks for, at most limit of them if
// limit is not 0.
func eachEvent(ctx context.Context, p *operator.Parts, q audit.Query, limit int, do func(store.AuditEvent) error) error {
	for left := limit; ; {
		q.Limit = audit.MaxPage
		if limit > 0 {
			q.Limit = min(left, q.Limit)
		}
		page, err := p.Directory.AuditEvents(ctx, directory.System(), q)
		if err != nil {
			return err
		}
		for _, e := range page.Items {
			if err := do(e); err != nil {
				return err
			}
		}
		left -= len(page.Items)
		if q.After = page.Next; q.After == "" || limit > 0 && left == 0 {
			return nil
		}
	}
}
