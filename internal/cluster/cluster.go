package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

const (
	// LiveFor is how long after its last beat a replica counts as alive, by the
	// database's clock.
	LiveFor = 7 * time.Second
	// beatEvery is how often a replica says that it is alive.
	beatEvery = 2 * time.Second
	// pollEvery is how often the registry is looked at, if no bell rings.
	pollEvery = time.Second
	// rememberFor is how long a replica that fell silent may still be running
	// somewhere, cut off from the database.
	rememberFor = 10 * time.Minute
	// roundTimeout bounds one look at the registry, and joinTimeout the first one, for
	// which nobody waits but the replica that joins.
	roundTimeout = 3 * time.Second
	joinTimeout  = 30 * time.Second
	// maxClockOffset is by how much the clocks of replicas may differ.
	maxClockOffset = 5 * time.Second
)

// Registry is what a Cluster needs of package store.
type Registry = store.Registry

// Local are the keys of this replica.
type Local interface {
	Public() *accesstoken.KeySet
}

// Config is what a Cluster is made of. All of it is required, but what says
// otherwise.
type Config struct {
	Registry Registry
	Secret   string // at least MinSecret bytes; the same for all
	Instance string // begins the kids of this replica
	// Incarnation tells this process from others that ran, or run, as the same Instance.
	Incarnation string
	Version     string        // of the binary
	Digest      string        // of the settings that must be the same everywhere
	MaxAge      time.Duration // how long a served key set may be used
	Algorithms  []string      // accepted of keys; see accesstoken.Algorithms
	URL         string        // where the others reach this replica; may be empty
	// Peers returns where replicas are reached; nil: as they say in the registry.
	Peers func() []discovery.Peer
	// Own returns at which of the peers' URLs this replica answers itself, as far as it
	// knows without asking; nil: at none.
	Own     func() []string
	Refresh time.Duration // how often they are asked for their keys
	// CutOff is for how long a replica that cannot reach the registry may go on
	// serving key sets, beyond LiveFor, before it knows a key from its maker.
	CutOff time.Duration
	// Client returns what to ask peers with whose certificate is for that name;
	// empty: for the host of their URL.
	Client func(name string) *http.Client
	// Tell tells the other replicas that there is news in the registry. It does not
	// block.
	Tell       func()
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// A Cluster is this replica's part in it, and what it knows of the others. Its
// methods may be called by any number of goroutines.
type Cluster struct {
	cfg     Config
	secret  *secret
	metrics *metrics
	local   Local
	view    atomic.Pointer[view]
	bell    chan struct{} // holds a ring that Run has not heard yet
	unknown negatives
	peers   peers

	lookTimeout time.Duration

	mu       sync.Mutex // guards what follows; not held while anything is waited for
	self     store.Replica
	entries  map[string]*entry // by kid
	rejected map[string]bool
	differs  map[string]string // configuration digests that were logged, by instance
	heard    map[string]heard  // by instance
	replicas []store.Replica   // those that are believed, as they were
	version  int64             // in this version of the registry
	joined   int64             // in that one
	// unaccepted is since when a key is known that is not accepted here; zero: so long
	// that nobody is kept from using it any more.
	unaccepted map[string]time.Time
	asOf       time.Time     // at this time, by the database's clock
	maxAge     time.Duration // the longest of all replicas'
	clockOff   bool          // this replica's clock is off by more than it may
	problem    error         // why this replica may take no traffic
	next       chan struct{} // closed and replaced when a round ends
	begun      int64         // rounds
	ended      int64         // the last of them that has ended
	endedAt    time.Time     // when, whether or not it succeeded
	failed     bool          // it did not
	succeeded  int64         // the last of them that has
	beatDue    time.Time
}

// errTwice: see Ready.
var errTwice = problem.New(problem.Unavailable, "instance_id_twice",
	"another replica runs under the same cluster.instance_id")

// Join enters this replica into the registry and reads what is there. Keys are to
// be had after Serve.
//
// It is an error that a live replica has the same instance id. One that ended
// without leaving looks like that for LiveFor, which Join waits; it returns at once
// when it sees that the other one lives. A Join that failed may be tried again with the
// same Config.
func Join(ctx context.Context, cfg Config) (*Cluster, error) {
	s, err := newSecret(cfg.Secret)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		cfg: cfg, secret: s, metrics: newMetrics(), local: nothing{}, lookTimeout: lookTimeout,
		bell: make(chan struct{}, 1), next: make(chan struct{}),
		peers:   peers{now: make(chan struct{}, 1), known: map[string]*peer{}, next: make(chan struct{})},
		entries: map[string]*entry{}, rejected: map[string]bool{}, differs: map[string]string{}, unaccepted: map[string]time.Time{}, heard: map[string]heard{}, maxAge: cfg.MaxAge, joined: math.MaxInt64,
		self: store.Replica{
			Instance: cfg.Instance, Incarnation: cfg.Incarnation, URL: cfg.URL, Version: cfg.Version, Config: cfg.Digest,
			MaxAge: cfg.MaxAge, StartedAt: cfg.Now(),
		},
	}
	c.view.Store(&view{})
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	if err := c.round(ctx, joinTimeout); err != nil {
		return nil, errors.Join(fmt.Errorf("cluster: %w", err), c.Leave(ctx))
	}
	if err := c.metrics.register(cfg.Registerer); err != nil {
		return nil, errors.Join(err, c.Leave(ctx))
	}
	c.joined = c.version
	c.believeOld()
	return c, nil
}

// nothing is a replica that has no keys yet.
type nothing struct{}

func (nothing) Public() *accesstoken.KeySet { return nil }

// Serve adds the keys of this replica to the merged set. It is called once, before
// Keys and Find.
func (c *Cluster) Serve(local Local) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.local = local
	c.merge()
}

// enter writes this replica's row. See Join about another one with its id.
func (c *Cluster) enter(ctx context.Context) error {
	tick := time.NewTicker(beatEvery / 4)
	defer tick.Stop()
	var first store.Replica
	for {
		holder, err := c.claim(ctx)
		switch {
		case !errors.Is(err, store.ErrConflict):
			return wrap(err)
		case first.Instance == "":
			first = holder
		case !sameBeat(holder, first):
			return fmt.Errorf("cluster.instance_id: another replica runs as %q; give each its own, or leave it out", c.cfg.Instance)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cluster.instance_id: a replica ran as %q a moment ago: %w", c.cfg.Instance, ctx.Err())
		case <-tick.C:
		}
	}
}

// claim writes this replica's row over that of another incarnation, unless that one
// lives: then the answer is its row and store.ErrConflict.
func (c *Cluster) claim(ctx context.Context) (store.Replica, error) {
	holder, err := c.cfg.Registry.EnterRegistry(ctx, c.introduce(), LiveFor)
	if errors.Is(err, store.ErrConflict) && !c.lives(ctx, holder) {
		holder, err = c.cfg.Registry.EnterRegistry(ctx, c.introduce(), 0)
	}
	return holder, err
}

// lives says whether the row with this replica's name, whose last beat is recent by
// the database's clock, may be a live replica's. It is not if nobody of ours wrote it,
// or if it has not changed for LiveFor: its beat may lie ahead of that clock.
func (c *Cluster) lives(ctx context.Context, holder store.Replica) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.secret.ownsReplica(holder) {
		c.reject(ctx, wrongMAC, "replica", holder.Instance)
		return false
	}
	return c.unchanged(holder) < LiveFor
}

// A heard is the last beat of a replica that was seen here.
type heard struct {
	row store.Replica
	at  time.Time // when it was seen first, by this replica's clock
}

// unchanged is for how long a replica's row has been seen with the same beat. c.mu is
// held.
func (c *Cluster) unchanged(r store.Replica) time.Duration {
	now := c.cfg.Now()
	if h, ok := c.heard[r.Instance]; ok && sameBeat(h.row, r) {
		return now.Sub(h.at)
	}
	c.heard[r.Instance] = heard{r, now}
	return 0
}

func sameBeat(a, b store.Replica) bool {
	return a.Incarnation == b.Incarnation && a.BeatAt.Equal(b.BeatAt)
}

func wrap(err error) error {
	if err != nil {
		return fmt.Errorf("cluster: the registry: %w", err)
	}
	return nil
}

// introduce is the row of this replica as it is now.
func (c *Cluster) introduce() store.Replica {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.self.ClockAt = c.cfg.Now()
	c.self.MAC = c.secret.replica(c.self)
	return c.self
}

// AskPeers has the peers asked now, because there are others. It never blocks.
func (c *Cluster) AskPeers() { c.peers.askNow() }

// Ring has the registry looked at now. It never blocks.
func (c *Cluster) Ring() {
	select {
	case c.bell <- struct{}{}:
	default: // one is waiting; it will be heard after this moment
	}
}

// Run keeps this replica in the registry and takes in what the others say, until
// ctx ends.
func (c *Cluster) Run(ctx context.Context) {
	var fetches sync.WaitGroup
	defer fetches.Wait()
	fetches.Go(func() { c.runPeers(ctx) })
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		case <-c.bell:
		}
		err := c.round(ctx, roundTimeout)
		if err != nil {
			c.peers.askNow() // the other way by which keys travel
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !failing:
			c.cfg.Logger.ErrorContext(ctx, "the registry of replicas is out of reach; going on with the keys that are known", "err", err)
		case err == nil && failing:
			c.cfg.Logger.InfoContext(ctx, "the registry of replicas is within reach again")
		}
		failing = err != nil
	}
}

// round looks at the registry once, takes in what is new, and says so there.
func (c *Cluster) round(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c.mu.Lock()
	c.begun++
	c.mu.Unlock()
	err := c.look(ctx)
	if err != nil {
		c.metrics.failures.Inc()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.merge() // also what time alone has changed
	c.ended, c.endedAt, c.failed = c.begun, c.cfg.Now(), err != nil
	if err == nil {
		c.succeeded = c.begun
	}
	close(c.next)
	c.next = make(chan struct{})
	return err
}

func (c *Cluster) look(ctx context.Context) error {
	version, err := c.cfg.Registry.RegistryVersion(ctx)
	if err != nil {
		return err
	}
	beat, news := c.due(version)
	if !beat && !news {
		return nil
	}
	asked := c.cfg.Now()
	all, err := c.cfg.Registry.Registered(ctx)
	if err != nil {
		return err
	}
	c.compareClocks(ctx, asked, c.cfg.Now(), all.Now)
	seen := c.apply(ctx, all)
	for _, r := range c.forgotten() {
		if err := c.cfg.Registry.LeaveRegistry(ctx, r.Instance, r.Incarnation); err != nil {
			return err
		}
	}
	if !beat && !seen {
		return nil
	}
	return c.beat(ctx, seen)
}

// compareClocks takes in what the database's clock said between two moments of this
// replica's. It says once when they certainly differ by too much, and once when they
// certainly no longer do.
func (c *Cluster) compareClocks(ctx context.Context, asked, answered, database time.Time) {
	half := answered.Sub(asked) / 2
	offset := answered.Add(-half).Sub(database)
	c.metrics.clock.Set(offset.Seconds())
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.clockOff && offset.Abs()-half >= maxClockOffset:
		c.clockOff = true
		c.cfg.Logger.WarnContext(ctx, "the clocks of this replica and of the database differ by too much; set the wrong one right", "offset", offset, "allowed", maxClockOffset)
	case c.clockOff && offset.Abs()+half < maxClockOffset:
		c.clockOff = false
		c.cfg.Logger.InfoContext(ctx, "the clocks of this replica and of the database agree again", "offset", offset)
	}
}

// forgotten are the replicas that have been silent for so long that they are gone.
func (c *Cluster) forgotten() []store.Replica {
	c.mu.Lock()
	defer c.mu.Unlock()
	var gone []store.Replica
	for _, r := range c.replicas {
		if c.silent(r) > rememberFor {
			gone = append(gone, r)
		}
	}
	return gone
}

// due says whether it is time to beat, and whether there is something to read.
func (c *Cluster) due(version int64) (beat, news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		news = news || c.waitsFor(e)
	}
	return !c.cfg.Now().Before(c.beatDue), news || version != c.version
}

// apply takes in what the registry holds, and says whether it has a version that
// others may be waiting for this replica to see.
func (c *Cluster) apply(ctx context.Context, all store.Registered) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		e.listed = false
	}
	var unaccepted []store.RegisteredKey
	for _, k := range all.Keys {
		if !c.secret.ownsKey(k.Key) {
			c.reject(ctx, wrongMAC, "signing key", k.ID)
			continue
		}
		if reason := c.takeIn(ctx, k); reason == wrongAlgorithm {
			unaccepted = append(unaccepted, k)
		}
	}
	c.version, c.asOf = all.Version, all.Now
	c.replicas = c.replicas[:0]
	c.maxAge = c.cfg.MaxAge
	live := 0
	for _, r := range all.Replicas {
		if !c.secret.ownsReplica(r) {
			c.reject(ctx, wrongMAC, "replica", r.Instance)
			continue
		}
		c.replicas = append(c.replicas, r)
		quiet := c.silent(r)
		if r.Config != c.cfg.Digest && c.differs[r.Instance] != r.Config && quiet < LiveFor {
			c.differs[r.Instance] = r.Config
			c.cfg.Logger.WarnContext(ctx, "a replica has other settings than this one (tokens, sessions, revocation, state or cluster.algorithms)", "replica", r.Instance, "config", r.Config, "own", c.cfg.Digest)
		}
		if quiet < rememberFor {
			c.maxAge = max(c.maxAge, r.MaxAge)
		}
		if quiet < LiveFor {
			live++
		}
	}
	c.metrics.replicas.WithLabelValues("live").Set(float64(live))
	c.metrics.replicas.WithLabelValues("silent").Set(float64(len(c.replicas) - live))
	maps.DeleteFunc(c.heard, func(instance string, _ heard) bool {
		return !slices.ContainsFunc(c.replicas, func(r store.Replica) bool { return r.Instance == instance })
	})
	maps.DeleteFunc(c.unaccepted, func(kid string, _ time.Time) bool {
		return !slices.ContainsFunc(unaccepted, func(k store.RegisteredKey) bool { return k.ID == kid })
	})
	c.merge()
	for _, e := range c.entries {
		if c.waitsFor(e) && c.everybodyHas(e) {
			e.had = c.cfg.Now()
			if e.maker == c.cfg.Instance {
				c.metrics.known.Observe(e.had.Sub(e.made).Seconds())
			}
		}
		c.complain(ctx, e)
	}
	upTo := all.Version
	for _, k := range unaccepted {
		if c.mayStillWait(k) && c.holdsBack(ctx, k) {
			upTo = min(upTo, k.Version-1)
		}
	}
	seen := c.self.Seen != upTo
	c.self.Seen = upTo
	return seen
}

// mayStillWait says whether the maker of a key waits for this replica before it signs
// with it: it made the key since this one joined, and lives. If this replica does not
// accept the key, it does not say that it has seen it. c.mu is held.
func (c *Cluster) mayStillWait(k store.RegisteredKey) bool {
	return k.Version > c.joined && k.RevokedAt.IsZero() && slices.ContainsFunc(c.replicas, func(r store.Replica) bool {
		return r.Instance == k.Instance && !r.StartedAt.After(k.CreatedAt) && c.silent(r) < LiveFor
	})
}

// holdsBack says whether this replica still keeps a key that it does not accept from
// being used. What it says that it has seen is one number, so everybody's later keys
// wait as well: it gives in before they are needed, and says so. c.mu is held.
func (c *Cluster) holdsBack(ctx context.Context, k store.RegisteredKey) bool {
	since, known := c.unaccepted[k.ID]
	if !known {
		since = c.cfg.Now()
		c.unaccepted[k.ID] = since
	}
	if since.IsZero() {
		return false
	}
	if c.cfg.Now().Sub(since) < c.Patience()+c.maxAge {
		return true
	}
	c.unaccepted[k.ID] = time.Time{}
	c.cfg.Logger.ErrorContext(ctx, "a replica signs with an algorithm that cluster.algorithms does not accept here: this one refuses its tokens; give all replicas the same settings",
		"replica", k.Instance, "kid", k.ID, "algorithm", k.Algorithm)
	return false
}

// silent is for how long a replica had not written when the registry was read last. A
// beat that lies ahead of the database's clock, which was put back, or which somebody
// wrote, says nothing: then it is for how long there was no other. c.mu is held.
func (c *Cluster) silent(r store.Replica) time.Duration {
	unchanged := c.unchanged(r)
	if r.BeatAt.After(c.asOf) {
		return unchanged
	}
	return c.asOf.Sub(r.BeatAt)
}

// beat says that this replica is alive and what it has seen. One whose row is gone
// enters again; one whose row is another's takes no more traffic.
func (c *Cluster) beat(ctx context.Context, news bool) error {
	err := c.cfg.Registry.Beat(ctx, c.introduce(), news)
	if errors.Is(err, store.ErrStale) {
		_, err = c.claim(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, store.ErrConflict):
		if c.problem == nil {
			c.cfg.Logger.ErrorContext(ctx, "another replica has taken this one's place: end one of them, or give each its own cluster.instance_id", "instance_id", c.cfg.Instance)
		}
		c.problem = errTwice
	case err != nil:
		return err
	default:
		c.problem = nil
	}
	c.beatDue = c.cfg.Now().Add(beatEvery)
	if news {
		c.cfg.Tell()
	}
	return nil
}

// waitsFor says whether somebody may still have to learn of a key that this
// replica may come to sign with. Of one that is no longer in the registry, because
// the database was restored, nobody learns there. c.mu is held.
func (c *Cluster) waitsFor(e *entry) bool {
	return e.had.IsZero() && !e.revoked && e.listed && e.version > 0
}

// everybodyHas says whether every other replica serves the key. A live one has said
// that it has seen the version. One that is silent can say nothing: it is given the
// time in which it learns of the key from its maker. c.mu is held.
func (c *Cluster) everybodyHas(e *entry) bool {
	for _, r := range c.replicas {
		if r.Instance == c.cfg.Instance || c.hasSeen(r, e) {
			continue
		}
		switch quiet := c.silent(r); {
		case quiet < LiveFor:
			return false
		case quiet < rememberFor && c.cfg.CutOff > 0 && c.cfg.Now().Before(e.heard.Add(LiveFor+c.cfg.CutOff)):
			return false
		}
	}
	return true
}

// hasSeen says whether a replica has read the registry with the key. What it saw in
// a version that is yet to come was in another database. c.mu is held.
func (c *Cluster) hasSeen(r store.Replica, e *entry) bool {
	return r.Seen >= e.version && r.Seen <= c.version
}

// believeOld is for what this replica finds when it starts: a key that is so old
// that whoever made it has waited long enough need not be waited for again.
func (c *Cluster) believeOld() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		if had := e.made.Add(c.Patience()); had.Before(c.cfg.Now()) {
			e.had = had
		}
	}
}

// Have implements keyring.Peers.
func (c *Cluster) Have(kid string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[kid]
	return e != nil && !e.had.IsZero() && c.cfg.Now().Sub(e.had) >= c.maxAge
}

// AnyKey implements keyring.Peers.
func (c *Cluster) AnyKey() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	for _, e := range c.entries {
		if !e.revoked && now.Before(e.until) {
			return true
		}
	}
	return false
}

// Patience implements keyring.Peers: a replica that has just died is waited for.
func (c *Cluster) Patience() time.Duration { return LiveFor + c.cfg.CutOff + 2*pollEvery }

// Authenticate implements keyring.Peers.
func (c *Cluster) Authenticate(k store.Key) []byte { return c.secret.key(k) }

// Changed implements keyring.Peers.
func (c *Cluster) Changed() {
	c.Ring()
	c.cfg.Tell()
}

// Ready returns why this replica may take no traffic; nil: it may.
func (c *Cluster) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.problem
}

// Waiting says what a replica waits for that has no key to sign with.
func (c *Cluster) Waiting() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	onItsWay := false
	for _, e := range c.entries {
		if e.maker != c.cfg.Instance || e.revoked {
			continue
		}
		if r, waits := c.heldUpBy(e); waits {
			return fmt.Sprintf("replica %s has not taken in this replica's key yet", r.Instance)
		}
		onItsWay = onItsWay || e.had.IsZero() || c.cfg.Now().Sub(e.had) < c.maxAge
	}
	if !onItsWay && c.failed {
		return "the time of this replica's key is over, and the database does not take the next one"
	}
	return fmt.Sprintf("this replica's key is known to the others, and will be used when no cache holds a key set without it (%v)", c.maxAge)
}

// heldUpBy returns the replica whose turn it is to take in a key. c.mu is held.
func (c *Cluster) heldUpBy(e *entry) (store.Replica, bool) {
	if !c.waitsFor(e) {
		return store.Replica{}, false
	}
	for _, r := range c.replicas {
		if r.Instance != c.cfg.Instance && !c.hasSeen(r, e) {
			return r, true
		}
	}
	return store.Replica{}, false
}

// complain says once of each key of this replica's that a live one holds it up for
// longer than caches would. c.mu is held.
func (c *Cluster) complain(ctx context.Context, e *entry) {
	r, waits := c.heldUpBy(e)
	waited := c.cfg.Now().Sub(e.heard)
	if !waits || e.maker != c.cfg.Instance || e.heldUp || waited <= c.maxAge || c.silent(r) >= LiveFor {
		return
	}
	e.heldUp = true
	c.metrics.heldUp.Inc()
	c.cfg.Logger.WarnContext(ctx, "a live replica has not taken in this one's next key, which cannot be used before", "kid", e.key.ID, "replica", r.Instance, "waited", waited)
}

// Leave takes this replica out of the registry. Its keys stay.
func (c *Cluster) Leave(ctx context.Context) error {
	return wrap(c.cfg.Registry.LeaveRegistry(ctx, c.self.Instance, c.self.Incarnation))
}
