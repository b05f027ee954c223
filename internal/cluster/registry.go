package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
)

// registry is what this replica has read in the registry of replicas, and what it
// writes there. It also has the merged key set (keys.go), since whether all replicas
// have a key is a matter of both.
type registry struct {
	*common
	local  Local // replaced once, by serve
	merged atomic.Pointer[merged]
	live   atomic.Int64 // how many replicas are live

	// mu guards everything below. It is not held while anything is waited for.
	mu sync.Mutex

	// This replica.
	self     store.Replica // its row
	beatDue  time.Time     // when it has to beat next
	former   store.Replica // the row that it found in its place when it joined; empty: none
	awaited  bool          // other replicas wait for its next beat
	entered  time.Time     // its first beat, by the database's clock; zero: not read yet
	joined   int64         // the version of the registry that it found when it joined
	clockOff bool          // its clock is off by more than it may be, which was logged
	problem  error         // why it may take no traffic: another replica has its id
	differs  error         // why it may take no traffic: another replica has other secrets

	// All replicas, as they were when the registry was read last.
	version   int64                // of the registry
	readAt    time.Time            // by this replica's clock
	readSince time.Time            // there was no outage between then and readAt
	asOf      time.Time            // by the database's clock
	replicas  []store.Replica      // those whose row is vouched for
	maxAge    time.Duration        // the longest of theirs
	beats     map[string]beatSeen  // by instance
	digests   map[string]string    // other configurations that were logged, by instance
	waits     map[string]time.Time // by kid; see holdsBackLocked

	// When all replicas had stopped, as far as this one depends on it; see stop.go.
	ahead    time.Duration   // by how much its clock is ahead of the database's, at most
	together bool            // others may start at the same time as this one, after a total stop
	stopped  time.Time       // by its clock; zero: some replica was live, or that is not known
	silent   map[string]bool // incarnations that were silent when it joined

	// Public keys that were taken in, by kid.
	keys map[string]*entry
}

func newRegistry(shared *common) *registry {
	cfg := shared.cfg
	r := &registry{
		common: shared, local: noKeys{},
		self: store.Replica{
			Instance: cfg.Instance, Incarnation: cfg.Incarnation, URL: cfg.URL, Version: cfg.Version, Config: cfg.Digest,
			MaxAge: cfg.MaxAge, StartedAt: cfg.Now(),
		},
		joined: math.MaxInt64, maxAge: cfg.MaxAge,
		beats: map[string]beatSeen{}, digests: map[string]string{}, waits: map[string]time.Time{},
		silent: map[string]bool{}, keys: map[string]*entry{},
	}
	r.merged.Store(&merged{})
	return r
}

// enter writes this replica's row. See Join about another replica with its id.
func (r *registry) enter(ctx context.Context) error {
	tick := time.NewTicker(timing.Beat / 4)
	defer tick.Stop()
	var first store.Replica
	for {
		holder, err := r.claim(ctx)
		switch {
		case !errors.Is(err, store.ErrConflict):
			return wrap(err)
		case r.cfg.Shared:
			r.await(holder)
			return nil
		case first.Instance == "":
			first = holder
		case !sameBeat(holder, first):
			return fmt.Errorf("cluster.instance_id: another replica runs as %q; give each its own, or leave it out", r.cfg.Instance)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cluster.instance_id: a replica ran as %q a moment ago: %w", r.cfg.Instance, ctx.Err())
		case <-tick.C:
		}
	}
}

// await notes the row of another incarnation, which has probably ended.
func (r *registry) await(holder store.Replica) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.former = holder
}

// claim writes this replica's row over that of another incarnation. If the other
// incarnation may be live, the answer is its row and store.ErrConflict.
func (r *registry) claim(ctx context.Context) (store.Replica, error) {
	holder, err := r.cfg.Registry.EnterRegistry(ctx, r.introduction(), timing.LiveFor)
	if errors.Is(err, store.ErrConflict) && !r.mayBeLive(ctx, holder) {
		holder, err = r.cfg.Registry.EnterRegistry(ctx, r.introduction(), 0)
	}
	return holder, err
}

// mayBeLive reports whether the row under this replica's id, whose last beat is
// recent by the database's clock, may be a live replica's. It is not if the cluster's
// secret does not vouch for it. Nor is it if it has not changed for timing.LiveFor, since a
// beat may lie ahead of the database's clock.
func (r *registry) mayBeLive(ctx context.Context, holder store.Replica) bool {
	if !r.secret.ownsReplica(holder) {
		r.rejected.add(ctx, wrongMAC, "replica", holder.Instance)
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unchangedLocked(holder) < timing.LiveFor
}

// introduction is the row of this replica as it is now.
func (r *registry) introduction() store.Replica {
	secrets := r.secrets()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.self.ClockAt, r.self.Secrets = r.cfg.Now(), secrets
	if len(secrets) > 0 {
		r.self.EnteredAt = r.entered
	}
	r.self.MAC = r.secret.replica(r.self)
	return r.self
}

// joinedNow ends the start of this replica: what it has read up to now was there
// before it. Whoever made a key that is old enough has waited long enough, so that key
// is not waited for again.
func (r *registry) joinedNow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joined = r.version
	for _, e := range r.keys {
		if known := e.made.Add(timing.Patience); known.Before(r.cfg.Now()) {
			e.knownAt = known
		}
	}
}

// look reads the registry, if there is something new or it is time to beat, and
// beats.
func (r *registry) look(ctx context.Context) error {
	version, err := r.cfg.Registry.RegistryVersion(ctx)
	if err != nil {
		return err
	}
	beat, news := r.due(version)
	if !beat && !news && !r.secretsChanged() {
		return nil
	}
	asked := r.cfg.Now()
	all, err := r.cfg.Registry.Registered(ctx)
	if err != nil {
		return err
	}
	r.compareClocks(ctx, asked, r.cfg.Now(), all.Now)
	seen := r.apply(ctx, all)
	for _, gone := range r.forgotten() {
		if err := r.cfg.Registry.ForgetReplica(ctx, gone.Instance, gone.Incarnation); err != nil {
			return err
		}
	}
	awaited := r.takeAwaited() || seen || r.secretsChanged()
	if !beat && !awaited {
		return nil
	}
	err = r.beat(ctx, awaited)
	if err != nil && awaited {
		r.beatNow()
	}
	return err
}

// due reports whether it is time to beat, and whether there is something to read.
func (r *registry) due(version int64) (beat, news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	news = version != r.version
	for _, e := range r.keys {
		news = news || e.awaited()
	}
	return !r.cfg.Now().Before(r.beatDue), news
}

// compareClocks takes in what the database's clock said between two moments of this
// replica's clock. It logs once when they certainly differ by too much, and once when
// they certainly no longer do.
func (r *registry) compareClocks(ctx context.Context, asked, answered, database time.Time) {
	half := answered.Sub(asked) / 2
	offset := answered.Add(-half).Sub(database)
	r.metrics.clock.Set(offset.Seconds())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead = answered.Sub(database)
	switch {
	case !r.clockOff && offset.Abs()-half >= timing.Leeway:
		r.clockOff = true
		r.cfg.Logger.WarnContext(ctx, "the clocks of this replica and of the database differ by too much; set the wrong one right", "offset", offset, "allowed", timing.Leeway)
	case r.clockOff && offset.Abs()+half < timing.Leeway:
		r.clockOff = false
		r.cfg.Logger.InfoContext(ctx, "the clocks of this replica and of the database agree again", "offset", offset)
	}
}

// apply takes in what the registry holds. It reports whether this replica has now
// seen a version that others may be waiting for it to see.
func (r *registry) apply(ctx context.Context, all store.Registered) bool {
	secrets := r.secrets()
	r.mu.Lock()
	defer r.mu.Unlock()
	unaccepted := r.takeInAllLocked(ctx, all.Keys)
	r.version, r.asOf = all.Version, all.Now
	r.readLocked()
	r.takeInReplicasLocked(ctx, all.Replicas)
	r.takeInStopLocked(all.Stop)
	r.compareSecretsLocked(ctx, secrets)
	maps.DeleteFunc(r.waits, func(kid string, _ time.Time) bool {
		return !slices.ContainsFunc(unaccepted, func(k store.RegisteredKey) bool { return k.ID == kid })
	})
	r.mergeLocked()
	for _, e := range r.keys {
		if e.awaited() && r.allHaveLocked(e) {
			e.knownAt = r.cfg.Now()
			if e.maker == r.cfg.Instance {
				r.metrics.known.Observe(e.knownAt.Sub(e.made).Seconds())
			}
		}
		r.warnHeldUpLocked(ctx, e)
	}
	upTo := all.Version
	for _, k := range unaccepted {
		if r.mayBeWaitedForLocked(k) && r.holdsBackLocked(ctx, k) {
			upTo = min(upTo, k.Version-1)
		}
	}
	seen := r.self.Seen != upTo
	r.self.Seen = upTo
	return seen
}

// takeInAllLocked takes in the registry's keys, and returns those whose algorithm is
// not accepted here.
func (r *registry) takeInAllLocked(ctx context.Context, keys []store.RegisteredKey) (unaccepted []store.RegisteredKey) {
	for _, e := range r.keys {
		e.listed = false
	}
	for _, k := range keys {
		if !k.RevokedAt.IsZero() { // which is believed of any row
			r.cfg.Revoked.Add(k.ID, k.RemoveAt)
		}
		if !r.secret.ownsKey(k.Key) {
			r.rejected.add(ctx, wrongMAC, "signing key", k.ID)
			continue
		}
		e, reason := r.takeInLocked(ctx, k.Key)
		switch {
		case reason == wrongAlgorithm:
			unaccepted = append(unaccepted, k)
		case e != nil:
			e.version, e.listed = k.Version, k.Version > 0
		}
	}
	return unaccepted
}

// takeInReplicasLocked takes in the registry's replicas.
func (r *registry) takeInReplicasLocked(ctx context.Context, replicas []store.Replica) {
	r.replicas = r.replicas[:0]
	r.maxAge = r.cfg.MaxAge
	live := 0
	for _, other := range replicas {
		if other.Incarnation == r.cfg.Incarnation && r.entered.IsZero() {
			r.entered = other.BeatAt
		}
		if !r.secret.ownsReplica(other) {
			r.rejected.add(ctx, wrongMAC, "replica", other.Instance)
			continue
		}
		r.replicas = append(r.replicas, other)
		silent := r.silentLocked(other)
		if other.Config != r.self.Config && r.digests[other.Instance] != other.Config && silent < timing.LiveFor {
			r.digests[other.Instance] = other.Config
			r.cfg.Logger.WarnContext(ctx, "a replica has other settings than this one (tokens, sessions, revocation, state, limits, admin.fresh_for or cluster.algorithms)", "replica", other.Instance, "config", other.Config, "own", r.self.Config)
		}
		if silent < timing.Forget {
			r.maxAge = max(r.maxAge, other.MaxAge)
		}
		if silent < timing.LiveFor {
			live++
		}
	}
	r.live.Store(int64(live))
	r.metrics.replicas.WithLabelValues("live").Set(float64(live))
	r.metrics.replicas.WithLabelValues("silent").Set(float64(len(r.replicas) - live))
	maps.DeleteFunc(r.beats, func(instance string, _ beatSeen) bool {
		return !slices.ContainsFunc(r.replicas, func(other store.Replica) bool { return other.Instance == instance })
	})
}

// forgotten are the replicas that have been silent for so long that their rows are to
// be deleted.
func (r *registry) forgotten() []store.Replica {
	r.mu.Lock()
	defer r.mu.Unlock()
	var gone []store.Replica
	for _, other := range r.replicas {
		if r.silentLocked(other) > timing.Forget {
			gone = append(gone, other)
		}
	}
	return gone
}

// beat writes that this replica is live and what it has seen. If its row is gone, it
// enters again. If its row is another incarnation's, it takes no more traffic, unless that
// one has been silent since this replica joined.
func (r *registry) beat(ctx context.Context, news bool) error {
	var holder store.Replica
	err := r.cfg.Registry.Beat(ctx, r.introduction(), news)
	if errors.Is(err, store.ErrStale) {
		holder, err = r.claim(ctx)
	}
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return err
	}
	r.beaten(ctx, err != nil, holder)
	if news {
		r.cfg.Notify()
	}
	return nil
}

// changed notes another digest of this replica's settings, for its next beat.
func (r *registry) changed(digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.self.Config = digest
}

// beaten notes that this replica has tried to beat, and whether its row is another
// incarnation's.
func (r *registry) beaten(ctx context.Context, taken bool, holder store.Replica) {
	r.mu.Lock()
	defer r.mu.Unlock()
	usurped := taken && !sameBeat(holder, r.former)
	if usurped && r.problem == nil {
		r.cfg.Logger.ErrorContext(ctx, "another replica has taken this one's place: end one of them, or give each its own cluster.instance_id", "instance_id", r.cfg.Instance)
	}
	r.problem = nil
	if usurped {
		r.problem = errTwice
	}
	r.beatDue = r.cfg.Now().Add(timing.Beat)
}

func (r *registry) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.problem != nil {
		return r.problem
	}
	return r.differs
}

// urls are where the other replicas say that they are reached.
func (r *registry) urls() (urls []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, other := range r.replicas {
		if other.URL != "" && other.Instance != r.cfg.Instance {
			urls = append(urls, other.URL)
		}
	}
	return urls
}

// A beatSeen is the last beat of a replica that was seen here.
type beatSeen struct {
	row store.Replica
	at  time.Time // when it was seen first, by this replica's clock
}

func sameBeat(a, b store.Replica) bool {
	return a.Incarnation == b.Incarnation && a.BeatAt.Equal(b.BeatAt)
}

// unchangedLocked is for how long a replica's row has been seen with the same beat.
func (r *registry) unchangedLocked(other store.Replica) time.Duration {
	now := r.cfg.Now()
	if b, ok := r.beats[other.Instance]; ok && sameBeat(b.row, other) {
		return now.Sub(b.at)
	}
	r.beats[other.Instance] = beatSeen{other, now}
	return 0
}

// silentLocked is for how long a replica had not written when the registry was read
// last. A beat that lies ahead of the database's clock says nothing (that clock was
// put back, or somebody forged the row); then it is for how long no other beat came.
func (r *registry) silentLocked(other store.Replica) time.Duration {
	unchanged := r.unchangedLocked(other)
	if other.BeatAt.After(r.asOf) {
		return unchanged
	}
	return r.asOf.Sub(other.BeatAt)
}

// mayBeWaitedForLocked reports whether the maker of a key that is not accepted here
// may be waiting for this replica before it signs with the key: it made the key since
// this replica joined, and is live.
func (r *registry) mayBeWaitedForLocked(k store.RegisteredKey) bool {
	return k.Version > r.joined && k.RevokedAt.IsZero() && slices.ContainsFunc(r.replicas, func(other store.Replica) bool {
		return other.Instance == k.Instance && !other.StartedAt.After(k.CreatedAt) && r.silentLocked(other) < timing.LiveFor
	})
}

// holdsBackLocked reports whether this replica still keeps a key that it does not
// accept from being used, by not saying that it has seen it. What it says is one
// number, so it holds back all later keys of all replicas, too. Therefore it gives in
// before they are needed, and logs that.
//
// r.waits has since when it holds a key back; zero: it has given in.
func (r *registry) holdsBackLocked(ctx context.Context, k store.RegisteredKey) bool {
	since, known := r.waits[k.ID]
	if !known {
		since = r.cfg.Now()
		r.waits[k.ID] = since
	}
	if since.IsZero() {
		return false
	}
	if r.cfg.Now().Sub(since) < timing.Patience+r.maxAge {
		return true
	}
	r.waits[k.ID] = time.Time{}
	r.cfg.Logger.ErrorContext(ctx, "a replica signs with an algorithm that cluster.algorithms does not accept here: this one refuses its tokens; give all replicas the same settings",
		"replica", k.Instance, "kid", k.ID, "algorithm", k.Algorithm)
	return false
}

// allHaveLocked reports whether every other replica serves the key. A live replica
// has written that it has seen the key's version. A silent one can write nothing: it
// is given the time that it needs to get the key from the key's maker.
func (r *registry) allHaveLocked(e *entry) bool {
	for _, other := range r.replicas {
		if other.Instance == r.cfg.Instance || r.hasSeenLocked(other, e) {
			continue
		}
		switch silent := r.silentLocked(other); {
		case silent < timing.LiveFor:
			return false
		case silent < timing.Forget && r.cfg.Now().Before(e.takenIn.Add(timing.LiveFor+timing.CutOff)):
			return false
		}
	}
	return true
}

// hasSeenLocked reports whether a replica has read the registry with the key. A
// version that is yet to come was seen in another database, which was replaced.
func (r *registry) hasSeenLocked(other store.Replica, e *entry) bool {
	return other.Seen >= e.version && other.Seen <= r.version
}

// knownToAll reports whether every replica has served the key for as long as a cache
// may keep a key set.
func (r *registry) knownToAll(kid string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.keys[kid]
	return e != nil && !r.ripeningLocked(e)
}

// ripeningLocked reports whether a cache may hold a key set of some replica without
// the key.
func (r *registry) ripeningLocked(e *entry) bool {
	return e.knownAt.IsZero() || r.cfg.Now().Sub(e.knownAt) < r.maxAge
}

// anyKey reports whether there is a key that a cache may hold and that was made after the
// given moment, or whether a cache may hold the key set of a replica that signs with a secret:
// such a set is served without any key.
func (r *registry) anyKey(after time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.cfg.Now()
	for _, other := range r.replicas {
		if r.isOther(other) && len(other.Secrets) > 0 && r.silentLocked(other) < timing.LiveFor+r.maxAge {
			return true
		}
	}
	for _, e := range r.keys {
		if !e.revoked && now.Before(e.until) && e.made.After(after) {
			return true
		}
	}
	return false
}

// waitingFor says what a replica without a key to sign with is waiting for, and for how long
// caches may hold a key set without the key; 0: that is not known.
func (r *registry) waitingFor(away bool) (text string, left time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ripening := false
	for _, e := range r.keys {
		if e.revoked || !r.ownLocked(e) {
			continue
		}
		if left := e.activate.Sub(r.cfg.Now()); e.first && left > 0 {
			return fmt.Sprintf("all replicas had stopped; caches may hold a key set from before for %v", r.maxAge), left
		}
		if other, waits := r.heldUpByLocked(e); waits {
			return fmt.Sprintf("replica %s has not taken in this replica's key yet", other.Instance), 0
		}
		if r.ripeningLocked(e) {
			ripening = true
			if !e.knownAt.IsZero() {
				left = r.maxAge - r.cfg.Now().Sub(e.knownAt)
			}
		}
	}
	if !ripening && away {
		return "the time of this replica's key is over, and the database does not take the next one", 0
	}
	return fmt.Sprintf("this replica's key is known to the others, and will be used when no cache holds a key set without it (%v)", r.maxAge), left
}

// heldUpByLocked returns a replica that has not taken in a key yet, if the key still
// waits for any.
func (r *registry) heldUpByLocked(e *entry) (store.Replica, bool) {
	if !e.awaited() {
		return store.Replica{}, false
	}
	for _, other := range r.replicas {
		if other.Instance != r.cfg.Instance && !r.hasSeenLocked(other, e) {
			return other, true
		}
	}
	return store.Replica{}, false
}

// warnHeldUpLocked logs once for each key of this replica's that a live replica holds
// it up for longer than caches would.
func (r *registry) warnHeldUpLocked(ctx context.Context, e *entry) {
	other, waits := r.heldUpByLocked(e)
	waited := r.cfg.Now().Sub(e.takenIn)
	if !waits || !r.ownLocked(e) || e.warned || waited <= r.maxAge || r.silentLocked(other) >= timing.LiveFor {
		return
	}
	e.warned = true
	r.metrics.heldUp.Inc()
	r.cfg.Logger.WarnContext(ctx, "a live replica has not taken in this one's next key, which cannot be used before", "kid", e.key.ID, "replica", other.Instance, "waited", waited)
}
