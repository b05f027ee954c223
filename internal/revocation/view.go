package revocation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/poll"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

var (
	// ErrRevoked: the token was taken back.
	ErrRevoked = problem.New(problem.Unauthenticated, "token_revoked", "this token has been taken back")
	// ErrStale: it is not known well enough what was taken back.
	ErrStale = problem.New(problem.Unavailable, "revocation_stale",
		"this replica has lost sight of what was taken back, so it accepts no token for now")
)

// Outage says what a view that is not fresh answers about a token of which it
// knows nothing bad. The zero value refuses it.
type Outage struct {
	Allow bool
	For   time.Duration // with Allow: for how long since the view went stale; zero: without end
}

// Config is what a View needs.
type Config struct {
	Store store.Revocations
	// Poll is how often the log is asked for news, if no bell rings.
	Poll time.Duration
	// MaxStaleness is for how long the view trusts itself after it has last
	// confirmed the head of the log. It must be longer than Poll.
	MaxStaleness time.Duration
	OnOutage     Outage
	// Shared: what this view knows is not enough; everybody's memory, or the
	// database, is asked about every token. Then OnOutage means nothing: who cannot
	// ask, refuses.
	Shared bool
	// Now tells the time, with a monotonic reading: staleness is measured by it.
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// A View is this replica's knowledge of what was taken back. It tails the log and
// answers from memory.
type View struct {
	cfg  Config
	list revoked.List
	bell poll.Bell // wakes Run
	// confirmed is the last that is known for certain; nil until the whole log
	// has been read once.
	confirmed atomic.Pointer[confirmation]
	round     atomic.Int64 // counts readings of the log as they begin
	failed    atomic.Int64 // the last of them that failed
	anew      atomic.Bool  // the log is another one, which has not been read to its end yet
	stale     atomic.Bool  // the present outage has been logged
	denying   atomic.Bool  // and that it lasts for longer than OnOutage allows
	answers   *prometheus.CounterVec
	checks    *prometheus.CounterVec
	shared    shared

	clock atomic.Pointer[clockReading] // of the database; nil: it was never read

	reading sync.Mutex // guards what follows, and confirming; not held while anybody is asked
	log     string     // id of the log that is being read
	read    int64      // the number up to which it has been read in the database
	// last is the line of that number; zero if it was not there to be read. With
	// another line in its place the log is another one.
	last  revoked.Entry
	heard int64 // the number up to which peers have told it; read or less: nothing more
	peers Peers // to be asked while the log does not answer

	mu   sync.Mutex
	next chan struct{} // closed and replaced when there may be something to see
}

// A confirmation says that everything up to the head of a log was in the list at
// a time.
type confirmation struct {
	head store.LogHead
	asOf time.Time // before the database was asked
	// round is of the reading that confirmed it.
	round int64
}

// A clockReading is of the database's clock and, not before that, of our own.
type clockReading struct{ database, own time.Time }

// pageSize is how many lines are read at once.
const pageSize = 1000

// NewView makes a view that knows nothing until Run has read the log.
func NewView(cfg Config) (*View, error) {
	if cfg.Poll <= 0 || cfg.MaxStaleness <= cfg.Poll {
		return nil, fmt.Errorf("revocation: max_staleness (%v) must be longer than poll (%v)", cfg.MaxStaleness, cfg.Poll)
	}
	v := &View{cfg: cfg, bell: poll.NewBell(), next: make(chan struct{}), peers: noPeers{}}
	v.shared.told.Store(-1)
	return v, v.register()
}

// Run keeps the view up to date and sweeps what has expired, until ctx ends.
func (v *View) Run(ctx context.Context) {
	var others sync.WaitGroup
	others.Go(func() { v.sweep(ctx) })
	others.Go(func() { v.follow(ctx) })
	defer others.Wait()

	poll.Loop{
		Do: v.Refresh, Every: v.cfg.Poll, Bell: v.bell, Logger: v.cfg.Logger,
		Failing: "the revocation log cannot be read; trying again until it can",
		Working: "the revocation log can be read again",
	}.Run(ctx)
}

// Ring has the log read at once. It never blocks.
func (v *View) Ring() { v.bell.Ring() }

// Check says whether a token, which has been verified, may be used: nil,
// ErrRevoked, or ErrStale. What is known to be taken back is refused however
// stale the view is. It answers from memory, unless the view is a shared one's.
func (v *View) Check(ctx context.Context, t *accesstoken.Token) error {
	had := v.confirmed.Load() // before the list, which has no less; judged by a later one, it might lack a line
	if _, ok := v.list.Revoked(t); ok {
		return ErrRevoked
	}
	if v.cfg.Shared {
		return v.checkShared(ctx, t, had)
	}
	stale, err := v.judge(had)
	if stale > 0 && v.stale.CompareAndSwap(false, true) {
		v.cfg.Logger.Error("the view of the revocation log is stale",
			"confirmed", had.asOf, "max_staleness", v.cfg.MaxStaleness, "allow", v.cfg.OnOutage.Allow, "for", v.cfg.OnOutage.For)
	}
	switch {
	case err != nil:
		v.answers.WithLabelValues("deny").Inc()
		if stale > 0 && v.cfg.OnOutage.Allow && v.denying.CompareAndSwap(false, true) {
			v.cfg.Logger.Error("the view of the revocation log has been stale for as long as revocation.on_outage allows; tokens are refused from now on",
				"confirmed", had.asOf, "for", v.cfg.OnOutage.For)
		}
	case stale > 0:
		v.answers.WithLabelValues("allow").Inc()
	}
	return err
}

// SessionRevoked says whether this replica knows that a session was taken back by its
// id.
func (v *View) SessionRevoked(id string) bool {
	// So late that nothing but the id is asked about.
	_, ok := v.list.Revoked(&accesstoken.Token{SessionID: id, Epoch: math.MaxInt64, IssuedAt: v.cfg.Now()})
	return ok
}

// Ready says whether the view answers for tokens that it does not know to be
// taken back: nil, or ErrStale.
func (v *View) Ready() error {
	_, err := v.judge(v.confirmed.Load())
	return err
}

// judge tells by how much what was confirmed is staler than it may be, and ErrStale
// if it must not be trusted any more.
func (v *View) judge(c *confirmation) (stale time.Duration, err error) {
	if c == nil { // whatever OnOutage says: a view that never saw the log would bring everything back
		return 0, ErrStale.After(v.cfg.Poll)
	}
	stale = revoked.Age(c.asOf, v.cfg.Now()) - v.cfg.MaxStaleness
	if stale <= 0 || v.cfg.OnOutage.Allow && (v.cfg.OnOutage.For == 0 || stale <= v.cfg.OnOutage.For) {
		return stale, nil
	}
	return stale, ErrStale.After(v.cfg.Poll)
}

// Confirmed returns up to which number the view knew everything, and when. The
// time is zero until the log has been read once.
func (v *View) Confirmed() (seq int64, asOf time.Time) {
	c := v.confirmed.Load()
	if c == nil {
		return 0, time.Time{}
	}
	return c.head.Seq, c.asOf
}

// Wait returns when the view has confirmed, since it was called, that it has
// everything up to number seq, or with ctx. (An older confirmation might be of a
// log that has been replaced since.)
func (v *View) Wait(ctx context.Context, seq int64) error {
	return v.wait(ctx, v.round.Load(), seq)
}

// wait is Wait as of the time when a reading was the last that had begun.
func (v *View) wait(ctx context.Context, called, seq int64) error {
	for {
		next := v.Next()
		if c := v.confirmed.Load(); c != nil && c.head.Seq >= seq && c.round > called {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Next returns a channel that is closed with the next confirmation, or before: who
// waits for one looks again.
func (v *View) Next() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.next
}

// Page returns the part of the log after a number, at most limit entries; the
// beginning of the log, if the reader's log is another one (and named) or he has
// seen more of it than there is. ErrStale while the log has never been read, or is
// read anew.
//
// A page may hold entries above its head, which this view has read but not
// confirmed: an earlier entry for the same user may have been merged into one.
func (v *View) Page(log string, after int64, limit int) (revoked.Page, error) {
	c := v.confirmed.Load() // before the entries: they may be newer, not older
	if c == nil {
		return revoked.Page{}, ErrStale.After(v.cfg.Poll)
	}
	p := revoked.Page{Log: c.head.ID, Head: c.head.Seq, AsOf: c.asOf.UTC().Truncate(time.Millisecond), Heartbeat: v.cfg.Poll.Milliseconds()}
	age := revoked.Age(c.asOf, v.cfg.Now()) + c.asOf.Sub(p.AsOf)
	p.Age = (age + time.Millisecond - 1).Milliseconds()
	if after > max(p.Head, v.list.Last()) || log != "" && log != p.Log {
		p.Snapshot, after = true, 0
	}
	p.Entries = v.list.After(after, limit)
	// Entries are in the order of the log that is being read.
	if v.anew.Load() || v.confirmed.Load().head.ID != p.Log {
		return revoked.Page{}, ErrStale.After(v.cfg.Poll)
	}
	p.More = len(p.Entries) == limit && p.Entries[limit-1].Seq < p.Head
	return p, nil
}

// Refresh reads the log to its end. A view that does not run needs no more to answer
// for a moment.
func (v *View) Refresh(ctx context.Context) error {
	// An answer that takes longer confirms nothing.
	ctx, cancel := context.WithTimeout(ctx, v.cfg.MaxStaleness)
	defer cancel()
	round := v.round.Add(1)
	err := v.readLog(ctx, round)
	if err != nil {
		v.failed.Store(round)
		v.wake()
	}
	return err
}

func (v *View) readLog(ctx context.Context, round int64) error {
	for {
		asked := v.cfg.Now()
		v.reading.Lock()
		log, after, known := v.log, v.read, max(v.read, v.heard) // peers may tell more while the answer is on its way
		v.reading.Unlock()
		// With the last line that is known, to compare it.
		lines, head, err := v.cfg.Store.RevocationsAfter(ctx, max(after-1, 0), pageSize)
		if err != nil {
			return err
		}
		if !head.Now.IsZero() {
			v.clock.Store(&clockReading{head.Now, v.cfg.Now()})
		}
		to, err := v.take(lines, confirmation{head, asked, round}, known)
		switch {
		case errors.Is(err, errOtherPast):
			v.cfg.Logger.Error("the revocation log lacks lines that were read before, or has others in their place, "+
				"as after a failover or a restore that has lost some; it gets another id, so that everybody reads it anew", "log", log, "read_to", after, "head", head.Seq)
			if err := v.cfg.Store.RenewLog(ctx, log); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		case to < after:
			continue
		}
		whole := len(lines) < pageSize
		if len(lines) > 0 && lines[0].Seq == after {
			lines = lines[1:]
		}
		v.tell(ctx, head.ID, after, to, lines)
		if whole {
			return nil
		}
	}
}

// errOtherPast: the log has the id that it had, but not the lines.
var errOtherPast = errors.New("revocation: the log has another past")

// take adds what was read from the last line on that was read before, and says up to
// where it reaches; -1 if it has to be read again, from another position. Before the
// database was asked, everything up to the number known was.
func (v *View) take(lines []store.Revocation, c confirmation, known int64) (to int64, err error) {
	v.reading.Lock()
	defer v.reading.Unlock()
	there := len(lines) > 0 && lines[0].Seq == v.read
	switch {
	case v.log == "":
		v.log = c.head.ID
	case c.head.ID != v.log:
		v.startAnew(c.head)
		return -1, nil
	case c.head.Seq < known, there && v.last.Seq == v.read && entryOf(lines[0]) != v.last:
		return -1, errOtherPast
	case !there && v.last.Seq == v.read && v.read > 0:
		// It has expired since it was read, which is long ago, and nobody can say any
		// more what came before it.
		v.read, v.last = 0, revoked.Entry{}
		return -1, nil
	}
	if err := v.apply(lines); err != nil {
		return -1, err
	}
	if len(lines) == pageSize {
		v.read = lines[len(lines)-1].Seq
	} else {
		v.read = c.head.Seq
		v.confirm(c)
	}
	v.last = revoked.Entry{}
	if n := len(lines); n > 0 && lines[n-1].Seq == v.read {
		v.last = entryOf(lines[n-1])
	}
	return v.read, nil
}

// startAnew is for the day on which the database is another one, or an older
// copy of itself. What was known to be taken back stays so.
func (v *View) startAnew(head store.LogHead) {
	v.cfg.Logger.Error("the revocation log is not the one that was read before: it was replaced, or restored from a backup; "+
		"what this replica knows to be revoked stays revoked until it expires, other replicas may not know it",
		"log", v.log, "read_to", v.read, "new_log", head.ID, "new_head", head.Seq)
	v.anew.Store(true)
	v.list.Detach()
	v.log, v.read, v.heard, v.last = head.ID, 0, 0, revoked.Entry{}
	v.shared.told.Store(-1)
}

func (v *View) apply(lines []store.Revocation) error {
	entries := make([]revoked.Entry, len(lines))
	for i, r := range lines {
		entries[i] = entryOf(r)
	}
	return v.list.Apply(entries...)
}

// entryOf rounds times up to the second, so that nothing is taken back too
// little or for too short a time.
func entryOf(r store.Revocation) revoked.Entry {
	kind := revoked.Kind(r.Kind)
	return revoked.Entry{
		Seq:          r.Seq,
		Kind:         kind,
		ID:           revoked.Digest(kind, r.Subject),
		Epoch:        r.Epoch,
		IssuedBefore: ceilSecond(r.IssuedBefore),
		ExpiresAt:    ceilSecond(r.ExpiresAt),
	}
}

func ceilSecond(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Add(time.Second - 1).Unix()
}

// confirm takes a confirmation in, but does not unlearn what a peer confirmed as of
// later. v.reading is held.
func (v *View) confirm(c confirmation) {
	if was := v.confirmed.Load(); was != nil && was.head.ID == c.head.ID && was.asOf.After(c.asOf) {
		c.asOf, c.head.Seq = was.asOf, max(was.head.Seq, c.head.Seq)
	}
	v.confirmed.Store(&c)
	v.anew.Store(false)
	v.denying.Store(false)
	if v.stale.Swap(false) {
		v.cfg.Logger.Info("the view of the revocation log is fresh again", "head", c.head.Seq)
	}
	v.wake()
}

// wake has whoever waits look again.
func (v *View) wake() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.next)
	v.next = make(chan struct{})
}

const (
	sweepEvery = time.Minute
	sweepBatch = 1000
)

// sweep deletes what has expired, in batches, so that nobody waits for it. All
// replicas do; a line that another has deleted is no line less.
func (v *View) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := v.Sweep(ctx); err != nil && !errors.Is(err, context.Canceled) {
			v.cfg.Logger.Warn("expired revocations cannot be deleted", "err", err)
		}
	}
}

// Sweep deletes what expired before the clock skew from the list and from the
// log, and says how many lines of the log. Run does it by itself.
//
// One wrong clock must not bring back what others have taken back, so it goes by
// that of this replica or the database's, whichever is behind.
func (v *View) Sweep(ctx context.Context) (int, error) {
	if v.confirmed.Load() == nil { // then the database's is not known
		return 0, nil
	}
	before := v.cfg.Now()
	if slow, known := v.slow(before); known {
		before = before.Add(min(slow, 0))
	}
	before = before.Add(-timing.ClockSkew)
	v.list.Expire(before)
	for total := 0; ; {
		n, err := v.cfg.Store.DeleteExpiredRevocations(ctx, before, sweepBatch)
		if total += n; err != nil || n < sweepBatch {
			return total, err
		}
	}
}

// slow is by how much a clock that shows now is behind the database's, if that is
// known. It is never too much.
func (v *View) slow(now time.Time) (d time.Duration, known bool) {
	c := v.clock.Load()
	if c == nil {
		return 0, false
	}
	return c.database.Add(v.cfg.Now().Sub(c.own)).Round(0).Sub(now.Round(0)), true
}

// register makes the metrics.
func (v *View) register() error {
	v.answers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_revocation_stale_answers_total",
		Help: "Tokens that were asked about while the view of the revocation log was stale, by what was decided.",
	}, []string{"decision"})
	for _, decision := range []string{"allow", "deny"} {
		v.answers.WithLabelValues(decision)
	}
	v.checks = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_revocation_shared_checks_total",
		Help: "Tokens that were asked about with revocation.check shared, by who answered.",
	}, []string{"by"})
	for _, by := range []string{byShared, byDatabase, byNobody} {
		v.checks.WithLabelValues(by)
	}
	if v.cfg.Registerer == nil {
		return nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "watchword_revocation_" + name, Help: help}, f)
	}
	for _, c := range []prometheus.Collector{
		v.answers, v.checks,
		gauge("view_staleness_seconds", "How long ago the head of the revocation log was last confirmed; -1 while it never was.", v.staleness),
		gauge("entries", "Revocations in memory.", func() float64 { return float64(v.list.Len()) }),
		gauge("head", "The last number of the revocation log that this replica knows.", func() float64 {
			head, _ := v.Confirmed()
			return float64(head)
		}),
	} {
		if err := v.cfg.Registerer.Register(c); err != nil {
			return fmt.Errorf("revocation: %w", err)
		}
	}
	return nil
}

func (v *View) staleness() float64 {
	_, asOf := v.Confirmed()
	if asOf.IsZero() {
		return -1
	}
	return revoked.Age(asOf, v.cfg.Now()).Seconds()
}
