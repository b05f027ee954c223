package activity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/poll"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// Every is how often a replica reads its metrics and writes its record.
const Every = 10 * time.Second

const (
	kind  = "activity" // of the records
	owner = "cluster"  // one for all of them, so that they are listed together
	// maxInstance is the length of the longest id of a replica.
	maxInstance = 64
	// MaxReplicas is how many records are read, of replicas that run or have run in the last two
	// days. It bounds what one page can cost: 16 MB from the state.
	MaxReplicas = 256
	// life is how long a record stays after its last change, and youngLife that of a replica that
	// has run for less than grownUp: one that fails again and again at its start has another id each
	// time, and would fill the list.
	life      = 48 * time.Hour
	youngLife = time.Hour
	grownUp   = 10 * time.Minute
	// timeout bounds reading and writing the record, and so how long Run takes to end.
	timeout = 2 * time.Second
	// lag is how long after the end of a point its record may arrive.
	lag = 2 * time.Second
)

// Rights says who may see what goes on.
type Rights interface {
	// Administration returns the user and the rights of an actor who holds at least one permission
	// of administration. Otherwise it returns an error that a client may read.
	Administration(ctx context.Context, actor directory.Actor) (store.User, directory.Rights, error)
}

// Config is what a Service needs. Every field is required.
type Config struct {
	State state.Store
	// Instance is the id of this replica.
	Instance string
	// Gatherer has the metrics of this replica.
	Gatherer   prometheus.Gatherer
	Rights     Rights
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// A Service keeps the figures of this replica, and reads those of all.
type Service struct {
	Config
	unreadable prometheus.Counter

	// What follows belongs to Run.
	sampler sampler
	encoder encoder
	kept    rings
	loaded  bool // kept has what a former process with this id has kept
}

// New makes a Service.
func New(c Config) *Service {
	s := &Service{Config: c, kept: newRings(), unreadable: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "watchword_activity_unreadable_records_total",
		Help: "Records of what goes on that could not be read and were left out, each time that they were met.",
	})}
	c.Registerer.MustRegister(s.unreadable)
	return s
}

// Run keeps the figures of this replica until ctx ends, and then writes them for the last time,
// which takes up to two seconds. It is called once.
func (s *Service) Run(ctx context.Context) {
	poll.Loop{
		Do: s.keep, Every: Every, Logger: s.Logger,
		Due: func() time.Duration { // points begin at whole multiples of Every
			now := s.Now()
			return now.Truncate(Every).Add(Every).Sub(now)
		},
		Failing: "what goes on at this replica cannot be written down for the overview; it is kept, and tried again until it can",
		Working: "what goes on at this replica is written down again",
	}.Run(ctx)
	if err := s.keep(context.WithoutCancel(ctx)); err != nil {
		s.Logger.WarnContext(ctx, "what went on at this replica in its last seconds could not be written down", "err", err)
	}
}

// keep takes a sample and writes the record.
func (s *Service) keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	families, gathering := s.Gatherer.Gather() // with an error it has the other metrics
	f := s.sampler.since(families)
	now := s.Now()
	s.kept.add(now.Add(-Every/2), &f)
	return errors.Join(gathering, s.write(ctx, now))
}

// write writes the record. Before the first time it reads the one of a former process, which would
// be lost.
func (s *Service) write(ctx context.Context, now time.Time) error {
	if !s.loaded {
		if err := s.load(ctx); err != nil {
			return fmt.Errorf("activity: read: %w", err)
		}
	}
	value, err := s.encoder.encode(now, s.kept)
	if err != nil {
		return fmt.Errorf("activity: encode: %w", err)
	}
	ttl := life
	if s.kept.minutes() < int(grownUp/time.Minute) {
		ttl = youngLife
	}
	if _, err := s.State.Put(ctx, key(s.Instance), value, ttl); err != nil {
		return fmt.Errorf("activity: write: %w", err)
	}
	return nil
}

// load goes on with what a former process with this id has kept.
func (s *Service) load(ctx context.Context) error {
	r, err := s.State.Get(ctx, key(s.Instance))
	var was rings
	if err == nil {
		_, was, err = new(decoder).decode(r.Value)
	}
	switch {
	case err == nil:
		was.addAll(s.kept)
		s.kept = was
	case errors.Is(err, errTorn), errors.Is(err, errVersion), errors.Is(err, state.ErrUnreadable):
		s.unreadable.Inc()
		s.Logger.WarnContext(ctx, "what went on at this replica before its start cannot be read; its record begins anew", "err", err)
	case !errors.Is(err, state.ErrNotFound):
		return err
	}
	s.loaded = true
	return nil
}

// errUnknownSpan: Overview was asked for another time than there is.
var errUnknownSpan = problem.New(problem.Invalid, "unknown_span", "the time must be 5m, 15m, 1h, 3h, 24h or 48h")

// Spans are the times that an Overview may cover.
func Spans() []time.Duration {
	return []time.Duration{5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 24 * time.Hour, 48 * time.Hour}
}

// ringOf returns the ring that has the points of a span.
func ringOf(span time.Duration) (int, error) {
	switch span {
	case 5 * time.Minute:
		return 0, nil
	case 15 * time.Minute, time.Hour, 3 * time.Hour:
		return 1, nil
	case 24 * time.Hour, 48 * time.Hour:
		return 2, nil
	}
	return 0, errUnknownSpan
}

// An Overview is what went on in the cluster.
type Overview struct {
	Span, Step time.Duration // how long it covers, and how long each point
	AsOf       time.Time     // by the clock of the replica that was asked
	Total      Series        // of all replicas; without an id
	Replicas   []Series      // of those of which at least one point is known, by id
	Unreadable int           // records that were left out because they are none
	More       bool          // there are more than MaxReplicas records; the rest was left out
}

// A Series is what went on at one replica, or at all.
type Series struct {
	Instance string
	Seen     time.Time // of the last record, by the replica's clock
	Points   []Point   // the oldest first; all series of an Overview have points of the same times
}

// A Point is what happened in the Step from a time on.
type Point struct {
	At time.Time
	// Known reports whether there are figures. Without, the replica did not run or has not
	// written. A total is known if the point of any replica is.
	Known bool
	// Partial: the time of the point is not over yet.
	Partial bool

	SignIns, SignInsRefused             int64 // whatever was presented; a challenge counts as neither
	Renewals, RenewalsRefused           int64
	Verifications, VerificationsRefused int64
	// SessionsEnded does not have those that expired.
	SessionsBegun, SessionsEnded int64
	Revocations                  int64 // entries of the log; not those of the canary
	LimitsHit                    int64 // requests that were refused as too many
	Lockouts                     int64 // of accounts
	// Requests and Failures (5xx) do not have probes, the feed of revocations, and reading metrics.
	Requests, Failures int64
	// Latency is of Requests.
	Latency Distribution
	// Propagation is how long after its making an entry of the revocation log was known: at this
	// replica, of entries of all. Of other replicas' entries it is the difference of two clocks.
	Propagation Distribution
}

// Overview returns what went on in the last span, one of Spans. The actor needs any permission of
// administration. A replica's newest point is as old as Every and some seconds.
func (s *Service) Overview(ctx context.Context, actor directory.Actor, span time.Duration) (Overview, error) {
	all, err := s.Overviews(ctx, actor, span)
	if err != nil {
		return Overview{}, err
	}
	return all[0], nil
}

// Overviews returns an Overview of each span, as of one moment. The records are read once.
func (s *Service) Overviews(ctx context.Context, actor directory.Actor, spans ...time.Duration) ([]Overview, error) {
	if _, _, err := s.Rights.Administration(ctx, actor); err != nil {
		return nil, err
	}
	which := make([]int, len(spans))
	for i, span := range spans {
		var err error
		if which[i], err = ringOf(span); err != nil {
			return nil, err
		}
	}
	records, err := s.State.List(ctx, kind, owner, "", MaxReplicas+1)
	if err != nil {
		return nil, fmt.Errorf("activity: %w", err)
	}
	now := s.Now()
	all, windows := make([]Overview, len(spans)), make([]window, len(spans))
	for i, span := range spans {
		w := window{shape: shapes[which[i]], count: int(span / shapes[which[i]].step)}
		w.end = w.slot(now.Add(-Every - lag))
		w.complete = w.slot(now.Add(-lag))
		windows[i] = w
		all[i] = Overview{Span: span, Step: w.step, AsOf: now, Total: Series{Points: w.points()}, More: len(records) > MaxReplicas}
	}
	var d decoder
	for _, r := range records[:min(len(records), MaxReplicas)] {
		instance, err := instanceOf(r.Key)
		var kept rings
		var seen time.Time
		if err == nil {
			seen, kept, err = d.decode(r.Value)
		}
		if err != nil {
			s.unreadable.Inc()
		}
		for i := range all {
			if err != nil {
				all[i].Unreadable++
				continue
			}
			all[i].take(windows[i], instance, seen, kept[which[i]])
		}
	}
	for i := range all {
		slices.SortFunc(all[i].Replicas, func(a, b Series) int { return strings.Compare(a.Instance, b.Instance) })
	}
	return all, nil
}

// take adds the figures of a replica.
func (o *Overview) take(w window, instance string, seen time.Time, r *ring) {
	if seen.After(o.Total.Seen) {
		o.Total.Seen = seen
	}
	points := w.points()
	if !w.fill(points, r) {
		return
	}
	o.Replicas = append(o.Replicas, Series{Instance: instance, Seen: seen, Points: points})
	for i := range points {
		o.Total.Points[i].add(&points[i])
	}
}

// A window is the points that an Overview has.
type window struct {
	shape
	count    int
	end      int64 // number of the newest
	complete int64 // number of the first that is not over
}

// points returns the points, none of which is known.
func (w window) points() []Point {
	points := make([]Point, w.count)
	counts := make([]int64, 2*buckets*w.count)
	for i := range points {
		slot := w.end - int64(w.count-1-i)
		points[i] = Point{At: time.Unix(slot*int64(w.step/time.Second), 0).UTC(), Partial: slot >= w.complete}
		points[i].Latency.Counts, counts = counts[:buckets:buckets], counts[buckets:]
		points[i].Propagation.Counts, counts = counts[:buckets:buckets], counts[buckets:]
	}
	return points
}

// fill fills the points with those of a ring, and reports whether any is known.
func (w window) fill(points []Point, r *ring) (any bool) {
	for i := range points {
		f, known := r.at(w.end - int64(w.count-1-i))
		if !known {
			continue
		}
		any = true
		p := &points[i]
		p.Known = true
		for column, to := range p.figures() {
			*to = int64(f[column])
		}
	}
	return any
}

// figures are the fields of a point by column.
func (p *Point) figures() [columns]*int64 {
	f := [columns]*int64{
		signIns: &p.SignIns, signInsRefused: &p.SignInsRefused,
		renewals: &p.Renewals, renewalsRefused: &p.RenewalsRefused,
		verifications: &p.Verifications, verificationsRefused: &p.VerificationsRefused,
		sessionsBegun: &p.SessionsBegun, sessionsEnded: &p.SessionsEnded,
		revocations: &p.Revocations, limitsHit: &p.LimitsHit, lockouts: &p.Lockouts,
		requests: &p.Requests, failures: &p.Failures,
	}
	for i := range buckets {
		f[latency+i], f[propagation+i] = &p.Latency.Counts[i], &p.Propagation.Counts[i]
	}
	return f
}

// add adds another replica's point of the same time.
func (p *Point) add(more *Point) {
	p.Known = p.Known || more.Known
	others := more.figures()
	for column, to := range p.figures() {
		*to += *others[column]
	}
}

// A Distribution says how long something took.
type Distribution struct {
	// Counts are how often it took up to each of Bounds, and more than the one before. The last
	// is how often it took more than all.
	Counts []int64
}

// Count returns how often it happened.
func (d Distribution) Count() (n int64) {
	for _, c := range d.Counts {
		n += c
	}
	return n
}

// Add adds what another distribution counted.
func (d *Distribution) Add(more Distribution) {
	if d.Counts == nil {
		d.Counts = make([]int64, buckets)
	}
	for i, n := range more.Counts {
		d.Counts[i] += n
	}
}

// Quantile returns the time within which a part q of all (0 to 1) were done, as if they were spread
// evenly between two bounds. It is zero if there were none, and the highest of Bounds if the truth is
// above it.
func (d Distribution) Quantile(q float64) time.Duration {
	rank := min(max(q, 0), 1) * float64(d.Count())
	var below float64
	var from time.Duration
	for i, to := range Bounds {
		if i >= len(d.Counts) {
			break
		}
		n := float64(d.Counts[i])
		if n > 0 && below+n >= rank {
			return from + time.Duration(float64(to-from)*max(rank-below, 0)/n)
		}
		below += n
		from = to
	}
	if below == float64(d.Count()) { // none is above the bounds
		return 0
	}
	return from
}
