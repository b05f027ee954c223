package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
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
	cmd.AddCommand(newAuditExport(), newAuditVerify())
	return cmd
}

func newAuditExport() *cobra.Command {
	var form, since string
	var follow bool
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the audit trail for another system",
		Long: `Write the audit trail, the earliest event first: as JSON Lines, as a table (CSV), or as
messages of syslog (RFC 5424), one on each line. With --follow the command goes on with
the events that come, until it is interrupted. It writes an event when it is 5 s old,
because others that are older may still be committed; one that is later than that comes
after newer ones. Each event has an id, by which a system that gets one twice can tell.

The export is in the trail.`,
		Example: `  watchword audit export --form jsonl > trail.jsonl
  watchword audit export --form syslog --follow | nc -N logs.example.com 601`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var from time.Time
			if cmd.Flags().Changed("since") {
				var err error
				if from, err = time.Parse(time.RFC3339, since); err != nil {
					return misused(cmd, fmt.Errorf("--since: %q is no time of the form 2026-11-28T00:00:00Z", since))
				}
			}
			switch audit.Form(form) {
			case audit.JSONLines, audit.CSV, audit.Syslog:
			default:
				return misused(cmd, fmt.Errorf("--form: %q is none of %s, %s, %s", form, audit.JSONLines, audit.CSV, audit.Syslog))
			}
			return reading(cmd, func(ctx context.Context, p *operator.Parts, _ *config.Config) error {
				err := p.Directory.FollowEvents(ctx, directory.System(), cmd.OutOrStdout(), audit.Form(form), from, follow)
				if follow && ctx.Err() != nil {
					return nil // it was interrupted, as it has to be
				}
				return err
			})
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&form, "form", string(audit.JSONLines), "the `form`: jsonl, csv or syslog")
	f.StringVar(&since, "since", "", "no event earlier than this `time`")
	f.BoolVar(&follow, "follow", false, "go on with the events that come")
	return cmd
}

func newAuditVerify() *cobra.Command {
	var head string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check that nobody has changed the audit trail",
		Long: `Check the whole audit trail against its seals: that no event has been changed, deleted or
added since the replicas sealed it, and that no seal is missing. It needs the storage key
or the cluster's secret, as the replicas do.

If the newest seals have been deleted together with their events, only somebody who has
noted one of them elsewhere can tell. The command shows the newest seal; the replicas
write it into their log every hour. With --head the noted seal must still be there.

The exit code is 0 if the trail is what was sealed, and 1 if it is not.`,
		Example: `  watchword audit verify
  watchword audit verify --head 4711:9f2c…`,
		Args: arguments(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var noted audit.Head
			if cmd.Flags().Changed("head") {
				var err error
				if noted, err = audit.ParseHead(head); err != nil {
					return misused(cmd, fmt.Errorf("--head: %w", err))
				}
			}
			return reading(cmd, func(ctx context.Context, p *operator.Parts, cfg *config.Config) error {
				report, err := p.VerifyAudit(ctx, cfg, noted)
				if err != nil {
					return err
				}
				if asJSON {
					err = json.NewEncoder(cmd.OutOrStdout()).Encode(verified{httpapi.AuditCheckOf(time.Now(), report), report.Newest.String()})
				} else {
					err = showReport(cmd.OutOrStdout(), report)
				}
				if err == nil && report.Found > 0 {
					err = fmt.Errorf("the audit trail is not what was sealed: %d problems", report.Found)
				}
				return err
			})
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&head, "head", "", "a `seal` that was noted: its number, a colon, and its digest")
	f.BoolVar(&asJSON, "json", false, "write the result as JSON")
	return cmd
}

// verified is what a check has found, in JSON.
type verified struct {
	httpapi.AuditCheck
	Head string `json:"head"`
}

func showReport(w io.Writer, r audit.Report) error {
	var b strings.Builder
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "%s\n", p.Text)
	}
	if more := r.Found - len(r.Problems); more > 0 {
		fmt.Fprintf(&b, "and %d more\n", more)
	}
	fmt.Fprintf(&b, "%d seals, %d events as they were sealed, %d too young to be sealed\n", r.Seals, r.Events, r.Waiting)
	if !r.Swept.IsZero() {
		fmt.Fprintf(&b, "events before %s were deleted because of their age\n", when(r.Swept))
	}
	if r.Newest.Seq > 0 {
		fmt.Fprintf(&b, "the newest seal, of %s: %s\n", when(r.SealedAt), r.Newest)
	}
	_, err := io.WriteString(w, b.String())
	return err
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
