package audit

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
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

const (
	writeTimeout  = 5 * time.Second
	sweepInterval = time.Hour
	countInterval = time.Minute // after which events are stored that were only counted
	sweepBatch    = 1000
	maxWord       = 64  // runes of an action or outcome
	maxName       = 128 // runes of an actor, target or address
	maxDetail     = 500 // runes of a detail
)

// Config is what a Trail is made of.
type Config struct {
	Store      store.Audit
	Chain      *Chain        // of the seals of the Store; nil: this process neither makes nor checks any
	Retention  time.Duration // how long events are kept; 0: for ever
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
	flood  *flood
	soon   chan struct{} // wakes Run
	// storing is held while events are stored that were counted.
	storing sync.Mutex
}

// New makes a Trail and registers its metric.
func New(cfg Config) (*Trail, error) {
	t := &Trail{cfg: cfg, flood: newFlood(), soon: make(chan struct{}, 1), failed: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "watchword_audit_write_failures_total",
		Help: "Audit events that are in the log but could not be written to the database.",
	})}
	if err := cfg.Registerer.Register(t.failed); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if cfg.Chain != nil {
		cfg.Chain.report = func(ctx context.Context, e store.AuditEvent) { t.record(ctx, e, false) }
	}
	return t, nil
}

// ChainStatus returns what this process knows of the seals of the trail.
func (t *Trail) ChainStatus() Status {
	if t.cfg.Chain == nil {
		return Status{}
	}
	return t.cfg.Chain.Status()
}

// Record writes an event that is part of no transaction: to the log, then to the store. It
// fills ID and At. When the store does not take the event, what was done stays done: an
// error follows the event in the log, and watchword_audit_write_failures_total counts it.
// The event is written even if ctx is cancelled, so that no client leaves the trail by
// hanging up. The log gets all events. The store gets all that were done, and of refusals
// and failures what RecordOwn says.
func (t *Trail) Record(ctx context.Context, e store.AuditEvent) {
	t.record(ctx, e, e.Outcome != Denied && e.Outcome != Failed)
}

// RecordOwn is Record for what actors do with what is their own, as often as they like. Of
// the events with one actor, action and outcome the store gets 30 at once, and after that
// one a minute that says how many it stands for; of an actor 120 at once, and two a minute.
// The log gets all.
func (t *Trail) RecordOwn(ctx context.Context, e store.AuditEvent) {
	t.record(ctx, e, false)
}

func (t *Trail) record(ctx context.Context, e store.AuditEvent, always bool) {
	e = clean(e)
	t.log(ctx, e)
	if always || t.flood.admit(e, t.cfg.Now()) {
		t.store(ctx, e)
	}
}

// RecordSoon writes an event that no actor stands behind, such as a refused login. It
// neither waits nor takes a time that depends on the database. Run writes the event, also to
// the log: at once if it is one of few, and otherwise one event a minute for those with the
// same action, target and outcome. All such events together are ten a minute in the long
// run; those that stand for the most come first.
func (t *Trail) RecordSoon(e store.AuditEvent) {
	t.flood.count(clean(e), t.cfg.Now())
	select {
	case t.soon <- struct{}{}:
	default: // Run has not looked yet
	}
}

// store writes an event to the store, or says in the log why not.
func (t *Trail) store(ctx context.Context, e store.AuditEvent) {
	e, err := t.complete(e)
	if err == nil {
		write, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
		defer cancel()
		err = t.cfg.Store.AppendAudit(write, e)
	}
	if err != nil {
		t.failed.Inc()
		t.cfg.Logger.ErrorContext(ctx, "audit event could not be stored", "id", e.ID, "action", e.Action, "err", err)
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

// Run writes the events that were counted, every minute, and those of RecordSoon at once. It
// deletes events that are older than the retention, hourly, and makes and checks the seals. It
// ends when ctx does.
func (t *Trail) Run(ctx context.Context) {
	var sealing sync.WaitGroup
	defer sealing.Wait()
	if t.cfg.Chain != nil {
		sealing.Go(func() { t.cfg.Chain.run(ctx, t.cfg.Now) })
	}
	sweep, count := time.NewTicker(sweepInterval), time.NewTicker(countInterval)
	defer sweep.Stop()
	defer count.Stop()
	t.sweep(ctx)
	for {
		select {
		case <-ctx.Done():
			t.storeCounted(ctx, true)
			return
		case <-t.soon:
			t.storeCounted(ctx, false)
		case <-count.C:
			t.storeCounted(ctx, false)
		case <-sweep.C:
			t.sweep(ctx)
		}
	}
}

// storeCounted writes events that stand for those that were counted. With last set, it is
// the last time.
func (t *Trail) storeCounted(ctx context.Context, last bool) {
	t.storing.Lock()
	defer t.storing.Unlock()
	for _, e := range t.flood.due(t.cfg.Now(), last) {
		if e.Actor == "" { // the log has those of actors
			t.log(ctx, e)
		}
		t.store(ctx, e)
	}
}

func (t *Trail) sweep(ctx context.Context) {
	if err := t.Sweep(ctx); err != nil && ctx.Err() == nil {
		t.cfg.Logger.WarnContext(ctx, "old audit events could not be deleted; trying again in an hour", "err", err)
	}
}

// Sweep deletes all events that are older than the retention, in batches that are small
// enough to hold no lock of the database for long. Before that a seal says that they may be missing.
func (t *Trail) Sweep(ctx context.Context) error {
	if t.cfg.Retention == 0 {
		return nil
	}
	before := t.cfg.Now().Add(-t.cfg.Retention)
	if t.cfg.Chain != nil {
		if allowed, err := t.cfg.Chain.allow(ctx, before); err != nil || !allowed {
			return err
		}
	}
	for {
		n, err := t.cfg.Store.DeleteAuditBefore(ctx, before, sweepBatch)
		if err != nil {
			return err
		}
		if n < sweepBatch {
			break
		}
	}
	if t.cfg.Chain != nil {
		return t.cfg.Chain.sweep(ctx)
	}
	return nil
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
