package audit

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/store"
)

// What AuditEvent.Outcome says.
const (
	OK     = "ok"     // it was done
	Denied = "denied" // it was not allowed
	Failed = "failed" // it was allowed and did not work
)

// DefaultRetention is how long events are kept.
const DefaultRetention = 365 * 24 * time.Hour

const (
	writeTimeout  = 5 * time.Second
	sweepInterval = time.Hour
	sweepBatch    = 1000
	maxWord       = 64  // runes of an action or outcome
	maxName       = 128 // runes of an actor, target or address
	maxDetail     = 500 // runes of a detail
)

// Config is what a Trail is made of.
type Config struct {
	Store      store.Audit
	Retention  time.Duration // 0: DefaultRetention
	Now        func() time.Time
	Rand       io.Reader
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// A Trail writes audit events to the log and to the store. It may be used by any
// number of goroutines.
type Trail struct {
	cfg    Config
	ids    ids
	failed prometheus.Counter
	flood  flood
}

// New makes a Trail and registers its metric.
func New(cfg Config) (*Trail, error) {
	if cfg.Retention == 0 {
		cfg.Retention = DefaultRetention
	}
	t := &Trail{cfg: cfg, flood: flood{actors: map[string]*refusals{}}, failed: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "watchword_audit_write_failures_total",
		Help: "Audit events that are in the log but could not be written to the database.",
	})}
	if err := cfg.Registerer.Register(t.failed); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return t, nil
}

// Record writes an event that is part of no transaction, such as a login: to the log,
// then to the store. It fills ID and At. When the store does not take the event, what
// was done stays done: an error follows the event in the log, and
// watchword_audit_write_failures_total counts it. The event is written even if ctx is
// cancelled, so that no client leaves the trail by hanging up. The log gets all
// refusals of an actor, the store a bounded number of them (floodRate).
func (t *Trail) Record(ctx context.Context, e store.AuditEvent) {
	e, err := t.complete(e)
	t.log(ctx, e)
	e, wanted := t.flood.admit(e)
	if err == nil && wanted {
		write, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
		defer cancel()
		err = t.cfg.Store.AppendAudit(write, e)
	}
	if err != nil {
		t.failed.Inc()
		t.cfg.Logger.ErrorContext(ctx, "audit event could not be stored", "id", e.ID, "action", e.Action, "error", err)
	}
}

// RecordIn writes an event into the caller's transaction, so that the store has both
// the change and its event, or neither. It fills ID and At. Nothing goes to the log,
// since the transaction may yet be undone or run again; call Log once it is committed.
func (t *Trail) RecordIn(ctx context.Context, r store.Records, e store.AuditEvent) error {
	e, err := t.complete(e)
	if err != nil {
		return err
	}
	return r.AppendAudit(ctx, e)
}

// Log writes an event to the log alone. It is for what RecordIn stored, once the
// transaction is committed.
func (t *Trail) Log(ctx context.Context, e store.AuditEvent) {
	t.log(ctx, clean(e))
}

// Run deletes events that are older than the retention, hourly, until ctx ends.
func (t *Trail) Run(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		if err := t.Sweep(ctx); err != nil && ctx.Err() == nil {
			t.cfg.Logger.WarnContext(ctx, "old audit events could not be deleted; trying again in an hour", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Sweep deletes all events that are older than the retention, in batches that are small
// enough to hold no lock of the database for long.
func (t *Trail) Sweep(ctx context.Context) error {
	before := t.cfg.Now().Add(-t.cfg.Retention)
	for {
		n, err := t.cfg.Store.DeleteAuditBefore(ctx, before, sweepBatch)
		if err != nil || n < sweepBatch {
			return err
		}
	}
}

// complete returns the event as it is stored: named, dated and clean.
func (t *Trail) complete(e store.AuditEvent) (store.AuditEvent, error) {
	e = clean(e)
	e.At = t.cfg.Now()
	var err error
	e.ID, err = t.ids.next(e.At, t.cfg.Rand)
	return e, err
}

func (t *Trail) log(ctx context.Context, e store.AuditEvent) {
	t.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "audit",
		slog.String("action", e.Action),
		slog.String("outcome", e.Outcome),
		slog.String("actor", e.Actor),
		slog.String("target", e.Target),
		slog.String("address", e.Address),
		slog.String("detail", e.Detail))
}

// clean makes every text of an event fit for a log line, a column and a page. Clients
// choose some of these texts.
func clean(e store.AuditEvent) store.AuditEvent {
	e.Actor = printable(e.Actor, maxName)
	e.Action = printable(e.Action, maxWord)
	e.Target = printable(e.Target, maxName)
	e.Outcome = printable(e.Outcome, maxWord)
	e.Address = printable(e.Address, maxName)
	e.Detail = printable(e.Detail, maxDetail)
	return e
}

// printable replaces what could forge a line or hide text (controls, line and
// paragraph separators, direction marks, bytes that are not UTF-8) by U+FFFD, and
// cuts s to limit runes.
func printable(s string, limit int) string {
	n := 0
	return strings.Map(func(r rune) rune {
		if n++; n > limit {
			return -1
		}
		if r == ' ' || unicode.IsGraphic(r) && !unicode.Is(unicode.Z, r) {
			return r
		}
		return utf8.RuneError
	}, s)
}
