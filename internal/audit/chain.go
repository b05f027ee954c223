package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/store"
)

const (
	// sealInterval is how often the replicas together make a seal, if there are events.
	sealInterval = 10 * time.Second
	// quietInterval is how often they make one if there are none: after it, nobody adds an event of
	// before.
	quietInterval = 10 * time.Minute
	// sealsAtOnce is how many seals are read in one statement: 1 MB.
	sealsAtOnce = 20
	// sealBatch is how many seals are deleted in one statement.
	sealBatch = 100
	// sweepAttempts is how often a replica tries to write the seal without which nothing old is
	// deleted: another one may take its number.
	sweepAttempts = 10
	// passTimeout bounds one pass: the first one of a database that has a long trail may take
	// long, and goes on in the next.
	passTimeout = time.Minute
	// firstCheck is how long after its start a replica first checks the whole chain, and
	// checkInterval is when it does so again. A check that failed is tried again after retryCheck.
	firstCheck    = time.Minute
	checkInterval = 24 * time.Hour
	retryCheck    = 10 * time.Minute
	// headInterval is how often the head of the chain goes to the log.
	headInterval = time.Hour
)

// ChainConfig is what a Chain is made of.
type ChainConfig struct {
	Store interface {
		store.Audit
		store.AuditSeals
	}
	// Box authenticates the seals. Nil: there is no key for it, and no seal is made.
	Box        *seal.Box
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// A Chain makes the seals of the audit trail and checks them. A seal covers the events that no
// seal before it covers, and has the digest of the one before it and a MAC under a key that is not
// in the database. So whoever can write the database, and has not the key, changes, deletes and adds nothing
// that is sealed without being found out by Verify.
//
// All replicas make seals, and none waits for another: the number of a seal is taken by the replica
// that writes it first, and another one has nothing to do then.
type Chain struct {
	cfg ChainConfig

	// making is held while a seal is made.
	making sync.Mutex
	// newest is the seal with the highest number that this replica has seen, and digest its digest.
	// It may no longer be there: then the next seal follows it all the same, so that the gap stays to
	// be seen.
	newest link
	digest digest
	window window
	// forged are seals without a MAC of ours whose numbers do not follow, which were reported.
	forged map[digest]bool

	mu     sync.Mutex
	status Status

	// report records an event about the chain in the trail.
	report func(ctx context.Context, e store.AuditEvent)
	number prometheus.Gauge
	faults prometheus.Counter
	broken prometheus.Gauge
}

// NewChain makes a Chain and registers its metrics.
func NewChain(cfg ChainConfig) (*Chain, error) {
	c := &Chain{
		cfg: cfg, forged: map[digest]bool{}, window: window{store: cfg.Store}, report: func(context.Context, store.AuditEvent) {},
		number: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "watchword_audit_newest_seal",
			Help: "Number of the newest seal of the audit trail that this replica has seen. It never falls.",
		}),
		faults: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_audit_seal_faults_total",
			Help: "Seals of the audit trail that this replica found to be changed, forged or gone while it went on with the chain.",
		}),
		broken: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "watchword_audit_chain_problems",
			Help: "What this replica's last check of the whole audit trail found to be changed, deleted or added. 0 before the first check.",
		}),
	}
	c.status.Sealing = cfg.Box != nil
	for _, m := range []prometheus.Collector{c.number, c.faults, c.broken} {
		if err := cfg.Registerer.Register(m); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
	}
	return c, nil
}

// A Status is what a replica knows of the chain without looking it through.
type Status struct {
	// Sealing reports whether seals are made: there is a key for them.
	Sealing bool
	Newest  Head      // Seq is 0 if there is no seal yet
	At      time.Time // of the newest seal, by the database's clock
	// Faults is how many seals this replica found to be changed, forged or gone while it went on
	// with the chain, since its start.
	Faults int
	// CheckedAt is when the last check of the whole trail ended, and Checked what it found. Zero:
	// there has been none since the start of this replica.
	CheckedAt time.Time
	Checked   Report
}

// A ChainState says in a word what a replica knows of the chain.
type ChainState string

const (
	ChainHolds     ChainState = "holds"     // the last check found nothing wrong
	ChainUnchecked ChainState = "unchecked" // there has been no check, and nothing is known to be wrong
	ChainBroken    ChainState = "broken"    // something has been changed, deleted or added
	ChainOff       ChainState = "off"       // there is no key for seals
)

// State returns what is known in a word.
func (s Status) State() ChainState {
	switch {
	case !s.Sealing:
		return ChainOff
	case s.Faults > 0 || s.Checked.Found > 0:
		return ChainBroken
	case s.CheckedAt.IsZero():
		return ChainUnchecked
	}
	return ChainHolds
}

// Status returns what this replica knows of the chain.
func (c *Chain) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// run makes seals, checks the chain now and then, and says in the log what its head is, until ctx
// ends.
func (c *Chain) run(ctx context.Context, now func() time.Time) {
	if c.cfg.Box == nil {
		return
	}
	seals, head := time.NewTicker(sealInterval), time.NewTicker(headInterval)
	// Replicas that start together do not all check at once.
	check := time.NewTimer(firstCheck + rand.N(firstCheck))
	defer seals.Stop()
	defer head.Stop()
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-seals.C:
			if err := c.seal(ctx, true); err != nil && ctx.Err() == nil {
				c.cfg.Logger.WarnContext(ctx, "the audit trail could not be sealed; trying again in 10 s", "err", err)
			}
		case <-head.C:
			if s := c.Status(); s.Newest.Seq > 0 {
				c.cfg.Logger.InfoContext(ctx, "the audit trail is sealed", "seal", s.Newest.Seq, "digest", s.Newest.Digest, "at", s.At)
			}
		case <-check.C:
			next := checkInterval
			if err := c.check(ctx, now); err != nil && ctx.Err() == nil {
				next = retryCheck
				c.cfg.Logger.WarnContext(ctx, "the seals of the audit trail could not be checked; trying again in 10 min", "err", err)
			}
			check.Reset(next)
		}
	}
}

// check looks the whole trail through at leisure, and keeps what it found for Status.
func (c *Chain) check(ctx context.Context, now func() time.Time) error {
	report, err := c.verify(ctx, Head{}, true)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.status.CheckedAt, c.status.Checked = now().UTC(), report
	c.mu.Unlock()
	c.broken.Set(float64(report.Found))
	for _, p := range report.Problems {
		c.cfg.Logger.ErrorContext(ctx, "the audit trail is not what was sealed", "problem", p.Text, "seal", p.Seal, "event", p.Event)
	}
	if report.Found > 0 {
		c.report(ctx, store.AuditEvent{Action: actionBroken, Outcome: Failed, Detail: fmt.Sprintf("%d problems; the first: %s", report.Found, report.Problems[0].Text)})
	}
	return nil
}

// actionBroken is the action of events which say that the trail has been changed.
const actionBroken = "audit.broken"

// Seal seals the events that are 5 s old and in no seal yet.
func (c *Chain) Seal(ctx context.Context) error { return c.seal(ctx, false) }

// seal is Seal. With unlessDone set it does nothing if another replica has just done so.
func (c *Chain) seal(ctx context.Context, unlessDone bool) error {
	if c.cfg.Box == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	c.making.Lock()
	defer c.making.Unlock()
	now, err := c.catchUp(ctx)
	if err != nil {
		return err
	}
	age := now.Sub(c.newest.at).Abs()
	if unlessDone && age < sealInterval/2 && len(c.newest.entries) < maxSealed {
		return nil // another replica has been faster
	}
	for {
		f, err := c.window.next(ctx, idsFrom(now.Add(-settle)), maxSealed)
		if err != nil || len(f.events) == 0 && c.newest.seq > 0 && age < quietInterval {
			return err
		}
		l := c.following(now)
		l.from, l.through = f.from, f.through
		for _, e := range f.events {
			l.entries = append(l.entries, entryOf(e))
		}
		taken, err := c.append(ctx, l)
		if err != nil || !taken {
			return err
		}
		if c.window.take(f); !f.more {
			return nil
		}
	}
}

// following returns the seal that follows the newest one, without events.
func (c *Chain) following(now time.Time) link {
	return link{
		seq: c.newest.seq + 1, at: now, first: max(c.newest.first, 1), swept: c.newest.swept,
		from: back(c.window.through), through: c.window.through, previous: c.digest,
	}
}

// append writes a seal, and reports whether its number was still free.
func (c *Chain) append(ctx context.Context, l link) (bool, error) {
	s, d := l.sealed(c.cfg.Box)
	err := c.cfg.Store.AppendAuditSeal(ctx, s)
	if errors.Is(err, store.ErrConflict) {
		return false, nil // another replica's: the next pass reads it
	}
	if err != nil {
		return false, err // it may have been written all the same: the next pass finds out
	}
	c.setNewest(l, d)
	return true, nil
}

func (c *Chain) setNewest(l link, d digest) {
	c.newest, c.digest = l, d
	c.number.Set(float64(l.seq))
	c.mu.Lock()
	c.status.Newest, c.status.At = Head{l.seq, d.String()}, l.at
	c.mu.Unlock()
}

// catchUp reads the seals that other replicas have made, checks them, and returns the time by the
// database's clock.
func (c *Chain) catchUp(ctx context.Context) (time.Time, error) {
	last, now, err := c.cfg.Store.LastAuditSeal(ctx)
	if err != nil {
		return now, err
	}
	if c.window.seen == nil || c.newest.seq == 0 && last.Seq > 0 {
		return now, c.begin(ctx, last)
	}
	if last.Seq == c.newest.seq && (last.Seq == 0 || digestOf(last.Content) == c.digest) {
		return now, nil
	}
	known, gone := c.newest.seq, true
	for after := known - 1; ; {
		seals, err := c.cfg.Store.AuditSeals(ctx, after, sealsAtOnce)
		if err != nil {
			return now, err
		}
		for _, s := range seals {
			after = s.Seq
			if s.Seq != known {
				c.read(ctx, s)
			} else if gone = digestOf(s.Content) != c.digest; gone {
				break
			}
		}
		if gone || len(seals) < sealsAtOnce {
			break
		}
	}
	if !gone {
		return now, nil
	}
	// Everything that this replica knew may be wrong, apart from the number and the digest.
	c.fault(ctx, known, "the seal that this replica saw last is no longer there, or is another one: seals and events have been deleted")
	newest, d := c.newest, c.digest
	if err := c.begin(ctx, last); err != nil {
		return now, err
	}
	if c.newest.seq < newest.seq {
		newest.from, newest.through = c.newest.from, c.newest.through
		c.setNewest(newest, d)
	}
	return now, nil
}

// begin reads so much of the end of the chain that the events are known that the next seal must not
// have again.
func (c *Chain) begin(ctx context.Context, newest store.AuditSeal) error {
	last, err := c.end(ctx, newest)
	if err != nil {
		return err
	}
	var seals []store.AuditSeal
	for n := int64(sealsAtOnce); ; n *= 2 {
		var err error
		if seals, err = c.cfg.Store.AuditSeals(ctx, max(last-n, 0), int(n)); err != nil {
			return err
		}
		if n >= last || n >= maxBegin || len(seals) == 0 || c.reaches(seals) {
			break
		}
	}
	c.window.seen, c.window.through = map[string]struct{}{}, ""
	for i, s := range seals {
		if i == 0 && s.Seq <= last { // what was before it is not known
			l, _, _ := openSeal(c.cfg.Box, s)
			c.newest, c.digest = link{seq: s.Seq - 1}, l.previous
		}
		c.read(ctx, s)
	}
	return nil
}

// end returns the number with which the chain ends. That is the highest one, unless somebody has
// written a row with a number of their choice: then numbers follow each other up to the end.
func (c *Chain) end(ctx context.Context, newest store.AuditSeal) (int64, error) {
	d := digestOf(newest.Content)
	if newest.Seq == 0 || c.cfg.Box.Authentic(newest.MAC, d[:], placeSeal) {
		return newest.Seq, nil
	}
	first, err := c.cfg.Store.AuditSeals(ctx, 0, 1)
	if err != nil || len(first) == 0 {
		return 0, err
	}
	if first[0].Seq > highest {
		return 0, nil // there is no other
	}
	there, beyond := first[0].Seq, newest.Seq // in between, rows end; at most 63 are looked at
	for there < beyond-1 {
		middle := there + (beyond-there)/2
		row, err := c.cfg.Store.AuditSeals(ctx, middle-1, 1)
		if err != nil {
			return 0, err
		}
		if len(row) > 0 && row[0].Seq == middle {
			there = middle
		} else {
			beyond = middle
		}
	}
	return there, nil
}

// highest is a number that no chain reaches by itself.
const highest = 1 << 62

// maxForged bounds how many forged seals are told from each other. More are not reported.
const maxForged = 100

// maxBegin is how many seals are read at the beginning, at most. The next seal may have events of
// older ones again, which does no harm.
const maxBegin = 1 << 10

// reaches reports whether seals have all events that the next pass looks back to.
func (c *Chain) reaches(seals []store.AuditSeal) bool {
	first, _, _ := openSeal(c.cfg.Box, seals[0])
	last, _, _ := openSeal(c.cfg.Box, seals[len(seals)-1])
	return first.through <= back(last.through)
}

// read goes on with the chain by a seal that was found in the store.
func (c *Chain) read(ctx context.Context, s store.AuditSeal) {
	l, d, problem := openSeal(c.cfg.Box, s)
	authentic := c.cfg.Box.Authentic(s.MAC, d[:], placeSeal)
	if !authentic && s.Seq != c.newest.seq+1 {
		// The chain does not go on after it: with the last number that there is, somebody would end it.
		if !c.forged[d] && len(c.forged) < maxForged {
			c.forged[d] = true
			c.fault(ctx, s.Seq, cmp.Or(problem, "it is forged")+", and its number does not follow")
		}
		return
	}
	switch {
	case problem != "":
	case s.Seq != c.newest.seq+1:
		problem = "a seal before it is missing"
	case l.previous != c.digest:
		problem = "the seal before it is not the one that it followed"
	}
	if problem != "" {
		c.fault(ctx, s.Seq, problem)
	}
	through := l.through
	if authentic {
		for _, e := range l.entries {
			c.window.seen[e.id] = struct{}{}
		}
	} else { // what it says may be forged
		through = c.window.through
		l = link{seq: s.Seq, at: l.at, first: c.newest.first, swept: c.newest.swept}
	}
	c.setNewest(l, d)
	c.window.move(through)
}

// fault says that the chain is not what it should be. The replica goes on with it all the same,
// so that what comes is sealed; Verify finds what is wrong for as long as it is in the store.
func (c *Chain) fault(ctx context.Context, seq int64, problem string) {
	c.faults.Inc()
	c.mu.Lock()
	c.status.Faults++
	c.mu.Unlock()
	c.cfg.Logger.ErrorContext(ctx, "a seal of the audit trail is wrong", "seal", seq, "problem", problem)
	c.report(ctx, store.AuditEvent{Action: actionBroken, Outcome: Failed, Detail: fmt.Sprintf("seal %d: %s", seq, problem)})
}

// allow makes a seal which says that events before a time may be missing, unless the newest one
// says so. It reports whether there are any and they may be deleted.
func (c *Chain) allow(ctx context.Context, before time.Time) (bool, error) {
	if c.cfg.Box == nil {
		seals, err := c.cfg.Store.AuditSeals(ctx, 0, 1)
		if err == nil && len(seals) > 0 {
			err = errors.New("the audit trail has seals, and this configuration has no key for them: set storage.key or cluster.secret")
		}
		return err == nil, err
	}
	c.making.Lock()
	defer c.making.Unlock()
	// The id of an event may be a millisecond later than its time.
	swept := before.Add(time.Second)
	if old, err := c.cfg.Store.AuditIDs(ctx, "", idsFrom(swept), 1); err != nil || len(old) == 0 {
		return false, err
	}
	for range sweepAttempts {
		now, err := c.catchUp(ctx)
		if err != nil {
			return false, err
		}
		if !c.newest.swept.Before(swept) {
			return true, nil
		}
		l := c.following(now)
		l.swept = swept
		if l.first, err = c.stillNeeded(ctx, l); err != nil {
			return false, err
		}
		if _, err := c.append(ctx, l); err != nil {
			return false, err
		}
	}
	return false, nil // the others seal so fast: in an hour, then
}

// stillNeeded returns the number of the first seal that has an event which is not too old. A seal
// that is wrong says nothing: it goes when one after it does.
func (c *Chain) stillNeeded(ctx context.Context, next link) (int64, error) {
	bound, first := idsFrom(next.swept), next.first
	for after := first - 1; ; {
		seals, err := c.cfg.Store.AuditSeals(ctx, after, sealsAtOnce)
		if err != nil || len(seals) == 0 {
			return first, err
		}
		for _, s := range seals {
			after = s.Seq
			l, _, problem := openSeal(c.cfg.Box, s)
			if problem != "" {
				continue
			}
			if s.Seq >= c.newest.seq || slices.ContainsFunc(l.entries, func(e entry) bool { return e.id >= bound }) {
				return first, nil
			}
			first = s.Seq + 1
		}
	}
}

// sweep deletes the seals of which allow said that they are not needed any more.
func (c *Chain) sweep(ctx context.Context) error {
	c.making.Lock()
	first := c.newest.first
	c.making.Unlock()
	for {
		n, err := c.cfg.Store.DeleteAuditSeals(ctx, first, sealBatch)
		if err != nil || n < sealBatch {
			return err
		}
	}
}

// Sealed is what the seals of the audit trail are to the command that changes the storage key.
type Sealed struct{ Store store.AuditSeals }

// Sealed implements seal.Holder.
func (Sealed) Sealed() string { return "seals of the audit trail" }

// Reseal implements seal.Holder: a seal whose MAC is right gets one under the primary key.
func (s Sealed) Reseal(ctx context.Context, b *seal.Box) (done seal.Resealed, err error) {
	var wrong []error
	for after := int64(0); ; {
		seals, err := s.Store.AuditSeals(ctx, after, sealsAtOnce)
		if err != nil {
			return done, errors.Join(append(wrong, err)...)
		}
		for _, one := range seals {
			after = one.Seq
			_, d, problem := openSeal(b, one)
			switch {
			case problem != "":
				if len(wrong) < maxProblems {
					wrong = append(wrong, fmt.Errorf("seal %d of the audit trail: %s", one.Seq, problem))
				}
			case b.Current(one.MAC):
				done.Current++
			default:
				err := s.Store.PutAuditSealMAC(ctx, one.Seq, b.MAC(d[:], placeSeal))
				if err != nil && !errors.Is(err, store.ErrNotFound) { // it may have become too old meanwhile
					return done, errors.Join(append(wrong, err)...)
				}
				done.Changed++
			}
		}
		if len(seals) < sealsAtOnce {
			return done, errors.Join(wrong...)
		}
	}
}
