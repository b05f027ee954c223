package revocation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
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
	// ErrRevoked: the token was revoked.
	ErrRevoked = problem.New(problem.Unauthenticated, "token_revoked", "this token has been revoked")
	// ErrStale: it is not known well enough what was revoked.
	ErrStale = problem.New(problem.Unavailable, "revocation_stale",
		"this replica has lost sight of what was revoked, so it accepts no token for now")
)

// Outage is what a view that is not fresh answers about a token that it does not know to
// be revoked. The zero value refuses the token.
type Outage struct {
	Allow bool
	For   time.Duration // with Allow: for how long since the view went stale; zero: without end
}

// Config is what a View needs.
type Config struct {
	Store store.Revocations
	// Poll is how often the log is read while no bell rings.
	Poll time.Duration
	// MaxStaleness is how long the view counts as fresh after it has last confirmed the
	// head of the log. It must be longer than Poll.
	MaxStaleness time.Duration
	OnOutage     Outage
	// Shared: the shared memory, or the database, is asked about every token. Then OnOutage
	// has no effect: a replica that can ask neither refuses the token.
	Shared bool
	// OnKey is called with each signing key that the log revokes, and until when the entry is
	// needed. Nil: nothing is called.
	OnKey func(key revoked.ID, until time.Time)
	// Now returns the time, with a monotonic reading, by which staleness is measured.
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

// A View is this replica's knowledge of what was revoked. It tails the log and answers
// from memory.
type View struct {
	cfg  Config
	list revoked.List
	bell poll.Bell // wakes Run
	// confirmed is the last confirmation. Nil: the whole log has not been read once.
	confirmed atomic.Pointer[confirmation]
	round     atomic.Int64 // counts readings of the log as they begin
	failed    atomic.Int64 // the last of them that failed
	anew      atomic.Bool  // the log is another one and has not been read to its end yet
	replaced  atomic.Bool  // the list has entries of a log that was read before this one
	stale     atomic.Bool  // the present outage has been logged
	denying   atomic.Bool  // it has been logged that the outage is longer than OnOutage allows
	floor     atomic.Int64 // see Floor
	answers   *prometheus.CounterVec
	checks    *prometheus.CounterVec
	appended  *prometheus.CounterVec
	known     prometheus.Histogram
	shared    shared

	clock atomic.Pointer[clockReading] // of the database; nil: it was never read

	// reading guards what follows, and that confirmed is replaced. It is not held while
	// the database or a peer is asked.
	reading sync.Mutex
	log     string // id of the log that is being read
	read    int64  // the number up to which it has been read in the database
	// timed is the number up to which it has been measured how soon entries were known, or up to
	// which they were there when the reading of the log began.
	timed int64
	// last is the entry of that number. Zero: it was not there. If another entry is in its
	// place, the log is another one.
	last revoked.Entry
	// learned is the id of the log of which peers told this view before it had read any.
	learned string
	heard   int64 // the number up to which peers' answers reach; read or less: they have no more
	peers   Peers // to be asked while the log does not answer

	mu   sync.Mutex    // guards next
	next chan struct{} // closed and replaced with each confirmation and each failure
}

// A confirmation is that everything up to the head of a log was in the list at a time.
type confirmation struct {
	head store.LogHead
	asOf time.Time // before the database was asked
	// round is the reading that confirmed it.
	round int64
}

// A clockReading is a reading of the database's clock, and one of this process's clock at
// that moment or later.
type clockReading struct{ database, own time.Time }

// pageSize is how many entries are read at once.
const pageSize = 1000

// NewView makes a view that knows nothing until Run has read the log.
func NewView(cfg Config) (*View, error) {
	if cfg.Poll <= 0 || cfg.MaxStaleness <= cfg.Poll {
		return nil, fmt.Errorf("revocation: max_staleness (%v) must be longer than poll (%v)", cfg.MaxStaleness, cfg.Poll)
	}
	v := &View{cfg: cfg, bell: poll.NewBell(), next: make(chan struct{}), peers: noPeers{}}
	v.shared.upTo.Store(-1)
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

// Check returns nil if a token, which has been verified, may be used; otherwise
// ErrRevoked or ErrStale. What is known to be revoked is refused however stale the view
// is. It answers from memory, unless Config.Shared is set.
func (v *View) Check(ctx context.Context, t *accesstoken.Token) error {
	// The confirmation is read before the list, which then has all of it. The list might
	// lack an entry of a later confirmation.
	had := v.confirmed.Load()
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

// SessionRevoked reports whether this replica knows that a session was revoked by its
// id.
func (v *View) SessionRevoked(id string) bool {
	_, ok := v.list.Revoked(OfSession(id))
	return ok
}

// UserRevoked reports whether this replica knows that a user's tokens of this epoch, or with
// one below it, were revoked.
func (v *View) UserRevoked(id string, epoch int64) bool {
	_, ok := v.list.Revoked(&accesstoken.Token{Subject: id, Epoch: epoch, IssuedAt: time.Unix(math.MaxInt64, 0)})
	return ok
}

// OfSession returns a token of a session of which nothing is known but the id. It is revoked
// if the session is, by its id.
func OfSession(id string) *accesstoken.Token {
	// Of the greatest epoch and issued later than any, so that nothing but the id can match.
	return &accesstoken.Token{SessionID: id, Epoch: math.MaxInt64, IssuedAt: time.Unix(math.MaxInt64, 0)}
}

// Clears reports whether this view alone is enough to know that a token, or what
// has the same names, is not revoked: the view is fresh, whatever OnOutage allows,
// and lists nothing against the token. The view of a shared memory is never enough.
// It answers from memory.
func (v *View) Clears(t *accesstoken.Token) bool {
	had := v.confirmed.Load() // before the list, as in Check
	if _, listed := v.list.Revoked(t); listed || v.cfg.Shared || had == nil {
		return false
	}
	return revoked.Age(had.asOf, v.cfg.Now()) <= v.cfg.MaxStaleness
}

// Ready returns nil if the view accepts tokens that it does not know to be revoked;
// otherwise ErrStale.
func (v *View) Ready() error {
	_, err := v.judge(v.confirmed.Load())
	return err
}

// judge returns for how long a confirmation has been stale, and ErrStale if it must not be
// relied on any more.
func (v *View) judge(c *confirmation) (stale time.Duration, err error) {
	// Whatever OnOutage says: a view that has never read the log would accept every revoked
	// token.
	if c == nil {
		return 0, ErrStale.After(v.cfg.Poll)
	}
	stale = revoked.Age(c.asOf, v.cfg.Now()) - v.cfg.MaxStaleness
	if stale <= 0 || v.cfg.OnOutage.Allow && (v.cfg.OnOutage.For == 0 || stale <= v.cfg.OnOutage.For) {
		return stale, nil
	}
	return stale, ErrStale.After(v.cfg.Poll)
}

// Confirmed returns the number up to which the view knew everything, and when it did. The
// time is zero until the log has been read once.
func (v *View) Confirmed() (seq int64, asOf time.Time) {
	c := v.confirmed.Load()
	if c == nil {
		return 0, time.Time{}
	}
	return c.head.Seq, c.asOf
}

// LogID returns the id of the log that the view has confirmed; "" if none yet.
func (v *View) LogID() string {
	c := v.confirmed.Load()
	if c == nil {
		return ""
	}
	return c.head.ID
}

// Wait returns when the view has confirmed, since the call, that it has everything up to
// number seq, or when ctx ends. (An older confirmation might be of a log that has been
// replaced since.)
func (v *View) Wait(ctx context.Context, seq int64) error {
	return v.wait(ctx, v.round.Load(), seq)
}

// wait is Wait for a confirmation by a reading later than the given one.
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

// Floor returns the lowest epoch that a user's token may carry; 0 while the log has never been
// read. It is the time in milliseconds since 1970, by the database's clock, at which this view
// began to read its log.
//
// A database that has gone back in time has lower epochs than verifiers remember: it was
// restored, or copied, or has lost commits in a failover. Every replica of it has started
// since then, or has begun to read its log anew. So the floor is above every epoch that may
// have been lost: each of those was a former floor, raised by one for each revocation.
func (v *View) Floor() int64 { return v.floor.Load() }

// beginLocked notes that the reading of a log begins.
func (v *View) beginLocked(head store.LogHead) {
	v.log, v.timed = head.ID, head.Seq
	now := head.Now
	if now.IsZero() {
		now = v.cfg.Now()
	}
	v.floor.Store(max(v.floor.Load()+1, now.UnixMilli()))
}

// Next returns a channel that is closed with the next confirmation or before it. A caller
// that waits for a confirmation looks again then.
func (v *View) Next() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.next
}

// Page returns the part of the log after a number, at most limit entries. It returns the
// beginning of the log instead if the reader names another log, or a number that the log
// has not reached. The error is ErrStale while the log has never been read, or is read
// anew.
//
// A page may hold entries above its head, which this view has read but not confirmed: an
// earlier entry for the same user may have been merged into a later one.
//
// The log may be revoked.Former: then it returns what this view has read in other logs than the
// present one.
func (v *View) Page(log string, after int64, limit int) (revoked.Page, error) {
	if log == revoked.Former {
		entries := v.list.Former(after, limit)
		return revoked.Page{Log: log, Entries: entries, More: len(entries) == limit}, nil
	}
	c := v.confirmed.Load() // before the entries, which may be newer but not older
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

// Refresh reads the log to its end. A view that does not run is fresh for a while after
// it.
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
	renewed := false
	for {
		asked := v.cfg.Now()
		v.reading.Lock()
		log, after, known := v.log, v.read, max(v.read, v.heard) // peers may answer more meanwhile
		v.reading.Unlock()
		// The last entry that is known is read again, to compare it.
		lines, head, err := v.cfg.Store.RevocationsAfter(ctx, max(after-1, 0), pageSize)
		if err != nil {
			return err
		}
		if !head.Now.IsZero() {
			v.clock.Store(&clockReading{head.Now, v.cfg.Now()})
		}
		if err := sound(head, lines); err != nil {
			return err
		}
		to, err := v.take(lines, confirmation{head, asked, round}, known)
		switch {
		case errors.Is(err, errOtherPast) && renewed:
			return err // the id does not change
		case errors.Is(err, errOtherPast):
			renewed = true
			v.cfg.Logger.Error("the revocation log lacks entries that were read before, or has others in their place, "+
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

// sound returns an error if the log is as no replica writes it. A head without a row, or with an
// id or a number that stand for something else, would count as a log that was read. An entry
// beyond the head would be the last that a reader hears of: it would go on after that entry,
// and the next ones have lower numbers.
func sound(head store.LogHead, lines []store.Revocation) error {
	unprintable := func(c rune) bool { return c < ' ' || c > '~' } // the id stands in headers and events
	if head.ID == "" || head.ID == revoked.Former || strings.ContainsFunc(head.ID, unprintable) || head.Seq < 0 {
		return fmt.Errorf("revocation: the head of the log, %q:%d, is none; somebody has changed it or deleted it", head.ID, head.Seq)
	}
	if n := len(lines); n > 0 && lines[n-1].Seq > head.Seq {
		return fmt.Errorf("revocation: the log has an entry %d beyond its head, %d; somebody has changed it", lines[n-1].Seq, head.Seq)
	}
	return nil
}

// errOtherPast: the log has the same id as before, but not the same entries.
var errOtherPast = errors.New("revocation: the log has another past")

// take adds what was read of the log, beginning with the last entry that was read before.
// It returns the number up to which the log has now been read, or -1 if it has to be read
// again, from another position. known is the number up to which entries were known before
// the database was asked.
func (v *View) take(lines []store.Revocation, c confirmation, known int64) (to int64, err error) {
	v.reading.Lock()
	defer v.reading.Unlock()
	there := len(lines) > 0 && lines[0].Seq == v.read
	switch {
	case v.log == "" && v.learned != "" && v.learned != c.head.ID:
		v.log = v.learned
		v.startAnewLocked(c.head)
		return -1, nil
	case v.log == "":
		v.beginLocked(c.head)
	case c.head.ID != v.log:
		v.startAnewLocked(c.head)
		return -1, nil
	case c.head.Seq < known, there && v.last.Seq == v.read && entryOf(lines[0]) != v.last:
		return -1, errOtherPast
	case !there && v.last.Seq == v.read && v.read > 0:
		// The last entry that was read has expired since, so that was long ago. Whether what
		// came before it is the same cannot be found out.
		v.read, v.last = 0, revoked.Entry{}
		return -1, nil
	}
	if err := v.apply(lines); err != nil {
		return -1, err
	}
	v.timeLocked(lines, known)
	if len(lines) == pageSize {
		v.read = lines[len(lines)-1].Seq
	} else {
		v.read = c.head.Seq
		v.confirmLocked(c)
	}
	v.last = revoked.Entry{}
	if n := len(lines); n > 0 && lines[n-1].Seq == v.read {
		v.last = entryOf(lines[n-1])
	}
	return v.read, nil
}

// timeLocked measures how soon entries were known: those above the number up to which they had
// been known before, each once. Entries in the future were made by a clock that is ahead of this
// one, and say nothing.
func (v *View) timeLocked(lines []store.Revocation, known int64) {
	now := v.cfg.Now()
	for _, r := range lines {
		if r.Seq <= v.timed {
			continue
		}
		v.timed = r.Seq
		if took := now.Sub(r.CreatedAt); r.Seq > known && took >= 0 {
			v.known.Observe(took.Seconds())
		}
	}
}

// startAnewLocked begins to read another log: the database is another one, or an older
// copy of itself. What was known to be revoked stays revoked.
func (v *View) startAnewLocked(head store.LogHead) {
	v.cfg.Logger.Error("the revocation log is not the one that was read before: it was replaced, or restored from a backup; "+
		"what this replica knows to be revoked stays revoked until it expires, other replicas may not know it",
		"log", v.log, "read_to", v.read, "new_log", head.ID, "new_head", head.Seq)
	v.anew.Store(true)
	v.replaced.Store(true)
	v.list.Detach()
	v.beginLocked(head)
	v.read, v.heard, v.last = 0, 0, revoked.Entry{}
	v.shared.upTo.Store(-1)
}

func (v *View) apply(lines []store.Revocation) error {
	entries := make([]revoked.Entry, len(lines))
	for i, r := range lines {
		entries[i] = entryOf(r)
	}
	return v.applyEntries(entries)
}

func (v *View) applyEntries(entries []revoked.Entry) error {
	if err := v.list.Apply(entries...); err != nil {
		return err
	}
	v.noteKeys(entries)
	return nil
}

// noteKeys calls OnKey with the signing keys among entries.
func (v *View) noteKeys(entries []revoked.Entry) {
	for _, e := range entries {
		if e.Kind == revoked.Key && v.cfg.OnKey != nil {
			v.cfg.OnKey(e.ID, time.Unix(e.ExpiresAt, 0))
		}
	}
}

// entryOf rounds times up to the second, so that an entry concerns no fewer tokens, and
// for no shorter a time, than was meant.
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

// confirmLocked takes a confirmation in. What a peer has confirmed as of a later time
// stays. The caller holds v.reading.
func (v *View) confirmLocked(c confirmation) {
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

// wake has all that wait look again.
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

// sweep deletes what has expired now and then. All replicas do. It deletes in batches, so
// that no other transaction waits for long.
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

// Sweep deletes what expired longer ago than timing.ClockSkew from the list and from the
// log, and returns how many entries of the log. Run calls it.
//
// A wrong clock must not delete what is needed, so Sweep goes by this replica's clock or
// the database's, whichever is behind.
func (v *View) Sweep(ctx context.Context) (int, error) {
	if v.confirmed.Load() == nil { // then the database's clock is not known
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

// slow is by how much a clock that shows now is behind the database's, if that is known.
// It is never more than the truth, since the answer took time.
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
	v.appended = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_revocations_total",
		Help: "Entries that this replica added to the revocation log, by what they revoke and why. A transaction that is repeated counts again.",
	}, []string{"kind", "reason"})
	v.known = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "watchword_revocation_known_seconds",
		Help:    "Time from the making of an entry of the revocation log, by the clock of the replica that made it, until this replica knew it, by its own. An entry of a clock that is ahead is left out.",
		Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5},
	})
	if v.cfg.Registerer == nil {
		return nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "watchword_revocation_" + name, Help: help}, f)
	}
	for _, c := range []prometheus.Collector{
		v.answers, v.checks, v.appended, v.known,
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
