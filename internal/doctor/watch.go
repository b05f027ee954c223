package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const (
	// watchAfter is how long after its start a replica looks for the first time, when what it
	// starts with has settled, and watchEvery how often from then on.
	watchAfter = time.Minute
	watchEvery = 10 * time.Minute
	// watchTimeout bounds one look.
	watchTimeout = 2 * time.Minute
	// examineTimeout bounds a look for which a person waits. It is shorter than a listener waits
	// for an answer.
	examineTimeout = 20 * time.Second
	// examineEvery is how often a replica looks for people: others are told what was found last.
	examineEvery = 10 * time.Second
)

// Rights decides who may see what is wrong with a deployment: the settings and the replicas are in
// it.
type Rights interface {
	// MayReadKeys returns nil if the holder of a verified token may see signing keys and replicas,
	// and otherwise the reason for the client. The address is the client's.
	MayReadKeys(ctx context.Context, by *accesstoken.Token, address string) error
}

// A WatchConfig is what a Watch is made of.
type WatchConfig struct {
	// Open returns what the checks look at. It asks the other replicas if they may be asked.
	Open   func(ctx context.Context, reach Reach) *Deployment
	Checks []Check
	Rights Rights
	// Now tells the time.
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// A Watch is the doctor in a replica: it runs the checks by itself now and then, as far as that
// takes no other replica, and all of them for people who ask.
type Watch struct {
	cfg   WatchConfig
	gauge *prometheus.GaugeVec

	failing  map[string]bool        // by the id of the check, as it was logged last; Look alone uses it
	last     atomic.Pointer[Report] // of Look; nil: none yet
	asking   singleflight.Group
	examined atomic.Pointer[Report] // of Examine
}

// NewWatch fails if the metric is registered already.
func NewWatch(cfg WatchConfig) (*Watch, error) {
	checks := make([]Check, len(cfg.Checks))
	for i, c := range cfg.Checks {
		checks[i] = oneAtATime(c)
	}
	cfg.Checks = checks
	w := &Watch{cfg: cfg, failing: map[string]bool{}, gauge: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "watchword_doctor_checks",
		Help: "Checks of the deployment as this replica ran them last, by what came of them and by what a fault costs.",
	}, []string{"status", "severity"})}
	if err := cfg.Registerer.Register(w.gauge); err != nil {
		return nil, fmt.Errorf("doctor: %w", err)
	}
	w.count(nil)
	return w, nil
}

// Run looks now and then, until ctx ends.
func (w *Watch) Run(ctx context.Context) {
	next := time.NewTimer(watchAfter + rand.N(watchAfter))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		w.Look(ctx)
		next.Reset(watchEvery - watchEvery/10 + rand.N(watchEvery/5)) // replicas that start together do not look together
	}
}

// Look runs the checks as far as they take no other replica. A check that begins to find something
// is logged, and one that no longer does.
func (w *Watch) Look(ctx context.Context) {
	r := w.look(ctx, Own, watchTimeout)
	if ctx.Err() != nil {
		return // this replica ends
	}
	counts := map[[2]string]float64{}
	for _, one := range r.Results {
		counts[[2]string{string(one.Status), string(one.Severity)}]++
		w.log(ctx, one)
	}
	w.count(counts)
	w.last.Store(&r)
}

// count sets the gauge to how many results have a status and a severity.
func (w *Watch) count(counts map[[2]string]float64) {
	for _, severity := range []Severity{Advice, Warning, Error} {
		for _, status := range []Status{OK, Failed, Unknown, Skipped} {
			labels := [2]string{string(status), string(severity)}
			w.gauge.WithLabelValues(labels[:]...).Set(counts[labels]) // at once: a scrape in between sees no fault gone
		}
	}
}

// log says that a check begins to find something, or no longer does. One that cannot look says
// nothing of what it found before.
func (w *Watch) log(ctx context.Context, r Result) {
	switch was := w.failing[r.ID]; {
	case r.Status == Failed && !was:
		level := map[Severity]slog.Level{Advice: slog.LevelInfo, Warning: slog.LevelWarn, Error: slog.LevelError}[r.Severity]
		first := r.Findings[0]
		w.cfg.Logger.Log(ctx, level, "a check of the deployment found something", "check", r.ID, "about", first.Subject, "seen", first.Seen, "mend", first.Mend, "findings", len(r.Findings))
		w.failing[r.ID] = true
	case (r.Status == OK || r.Status == Skipped) && was:
		w.cfg.Logger.InfoContext(ctx, "a check of the deployment finds nothing any more", "check", r.ID)
		delete(w.failing, r.ID)
	}
}

func (w *Watch) look(ctx context.Context, reach Reach, timeout time.Duration) Report {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	results := Run(ctx, w.cfg.Open(ctx, reach), w.cfg.Checks)
	return Report{At: w.cfg.Now(), Reach: reach, Results: results}
}

// Last returns what Look found last; nil: it has not looked.
func (w *Watch) Last() *Report { return w.last.Load() }

// Own returns what Look found last to somebody who may see it; nil: it has not looked. The error
// is for the client.
func (w *Watch) Own(ctx context.Context, by *accesstoken.Token, address string) (*Report, error) {
	if err := w.cfg.Rights.MayReadKeys(ctx, by, address); err != nil {
		return nil, err
	}
	return w.last.Load(), nil
}

// Examine runs all checks for somebody who may see what they find. All who ask at the same time, and
// soon after, are told the same. The error is for the client.
func (w *Watch) Examine(ctx context.Context, by *accesstoken.Token, address string) (*Report, error) {
	if err := w.cfg.Rights.MayReadKeys(ctx, by, address); err != nil {
		return nil, err
	}
	shared, _, _ := w.asking.Do("", func() (any, error) {
		if last := w.examined.Load(); last != nil && w.cfg.Now().Sub(last.At) < examineEvery {
			return last, nil
		}
		r := w.look(context.WithoutCancel(ctx), All, examineTimeout)
		w.examined.Store(&r)
		return &r, nil
	})
	return shared.(*Report), nil
}
