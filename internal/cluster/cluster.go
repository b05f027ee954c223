package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/poll"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/timing"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// joinTimeout bounds the first look at the registry, for which only the joining replica
// waits.
const joinTimeout = 30 * time.Second

// Registry is what a Cluster needs of package store.
type Registry = store.Registry

// Local holds the keys of this replica.
type Local interface {
	Public() *accesstoken.KeySet
	Published() []keyring.PublicKey
}

// Config is what a Cluster is made of. Everything is required, unless its comment
// says otherwise.
type Config struct {
	Registry Registry
	Secret   string // at least MinSecret bytes; the same on all replicas
	Instance string // begins the kids of this replica
	// Incarnation distinguishes this process from others that ran, or run, under the
	// same Instance.
	Incarnation string
	Version     string        // of the binary
	Digest      string        // of the settings that must be the same on all replicas; see SettingsChanged
	MaxAge      time.Duration // how long a served key set may be used
	Algorithms  []string      // accepted of keys; see accesstoken.Algorithms
	URL         string        // where the peers reach this replica; may be empty
	// Peers returns where replicas are reached. Nil: at the URLs in the registry.
	Peers func() []discovery.Peer
	// OwnURLs returns the URLs at which this replica is known to answer itself; they
	// are not asked. Nil: none.
	OwnURLs func() []string
	// Shared reports whether this replica signs with keys that belong to no single replica.
	// Then it need not have its row before it takes traffic.
	Shared bool
	// Secrets returns the kids of the signing secrets that this replica accepts, and once more
	// in front that of the one that it signs with. Nil: none.
	Secrets func() []string
	Refresh time.Duration // how often peers are asked for their keys
	// Client returns the client for peers whose certificate is for that name. An empty
	// name stands for the host of their URL.
	Client func(name string) *http.Client
	// Revoked are the keys that were seen revoked. Nil: none were.
	Revoked *keyring.Tombstones
	// Notify tells the other replicas that the registry has changed. It does not
	// block.
	Notify     func()
	Now        func() time.Time
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// A Cluster is this replica's part in the cluster, and what it knows of the other
// replicas. Its methods may be called by any number of goroutines.
//
// It has three parts, each with its own lock. No part calls another one while it
// holds its lock.
type Cluster struct {
	*common
	registry *registry
	peers    *peers
	lookup   *lookup
	answers  answers
	examined nonces
}

// common is what the parts share. Nothing in it changes after Join, except what has
// its own lock.
type common struct {
	cfg      Config
	secret   *secret
	metrics  *metrics
	rejected rejections
}

// Join enters this replica into the registry and reads what is there. Keys and Find
// may be called after Serve.
//
// Join fails if a live replica has the same instance id. A replica that ended
// without leaving looks live for timing.LiveFor; Join waits for that long, and returns at
// once when the other replica proves that it is live. A Join that failed may be
// tried again with the same Config.
//
// With Config.Shared, Join does not wait: no kid has the instance id. The replica takes the
// row when it is silent. If the other replica is live after all, this one is not Ready from
// the other one's next beat on.
func Join(ctx context.Context, cfg Config) (*Cluster, error) {
	s, err := newSecret(cfg.Secret)
	if err != nil {
		return nil, err
	}
	if cfg.Revoked == nil {
		cfg.Revoked = keyring.NewTombstones(0, cfg.Now)
	}
	shared := &common{cfg: cfg, secret: s, metrics: newMetrics()}
	shared.rejected = rejections{logger: cfg.Logger, count: shared.metrics.rejected}
	c := &Cluster{common: shared, registry: newRegistry(shared)}
	c.peers = newPeers(shared, c.registry)
	c.lookup = newLookup(shared, c.registry, c.peers)
	if err := c.registry.enter(ctx); err != nil {
		return nil, err
	}
	if err := c.round(ctx, joinTimeout); err != nil {
		return nil, errors.Join(fmt.Errorf("cluster: %w", err), c.Leave(ctx))
	}
	if err := c.metrics.register(cfg.Registerer); err != nil {
		return nil, errors.Join(err, c.Leave(ctx))
	}
	c.registry.joinedNow()
	return c, nil
}

// Serve adds the keys of this replica to the merged set. It is called once, before
// Keys, Find and Run.
//
// After a total stop, the first call of Keys or Find has the registry read: since Join, another
// replica may have made a key that signs at once.
func (c *Cluster) Serve(local Local) {
	if c.registry.serve(local) {
		c.lookup.outdate()
	}
}

// Run keeps this replica in the registry and takes in what the other replicas say,
// until ctx ends.
func (c *Cluster) Run(ctx context.Context) {
	var fetches sync.WaitGroup
	defer fetches.Wait()
	fetches.Go(func() { c.peers.run(ctx) })
	poll.Loop{
		Do: func(ctx context.Context) error {
			err := c.round(ctx, timing.RegistryTimeout)
			if err != nil {
				c.AskPeers() // the other way by which keys travel
			}
			return err
		},
		Every: timing.RegistryPoll, Bell: c.lookup.bell, Logger: c.cfg.Logger,
		Failing: "the registry of replicas is out of reach; going on with the keys that are known",
		Working: "the registry of replicas is within reach again",
	}.Run(ctx)
}

// round looks at the registry once: it takes in what is new, and writes that it has.
func (c *Cluster) round(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c.lookup.begin()
	err := c.registry.look(ctx)
	if err != nil {
		c.metrics.failures.Inc()
	}
	c.registry.refresh()
	c.lookup.end(err)
	return err
}

// Ring has the registry read now. It never blocks.
func (c *Cluster) Ring() { c.lookup.bell.Ring() }

// AskPeers has the peers asked for their keys now. It never blocks.
func (c *Cluster) AskPeers() { c.peers.askNow() }

// AskAll asks each peer once, and returns when all have answered or have had their time. A
// replica calls it before it has keys: what a live replica has seen revoked is then revoked
// here, too, whatever the database says by now.
func (c *Cluster) AskAll(ctx context.Context) {
	c.peers.askAll(ctx)
	if c.peers.anyAnswered() {
		c.registry.notStopped()
	}
}

// Live returns how many replicas are live, this one included, as of the last time that the
// registry was read.
func (c *Cluster) Live() int { return max(1, int(c.registry.live.Load())) }

// Others returns where the other replicas are reached. This replica is among them
// as long as it knows none of its own URLs and has not met itself at one.
func (c *Cluster) Others() []discovery.Peer { return c.peers.others() }

// Instance is the id of this replica.
func (c *Cluster) Instance() string { return c.cfg.Instance }

// Have implements keyring.Peers.
func (c *Cluster) Have(kid string) bool { return c.registry.knownToAll(kid) }

// AnyKey implements keyring.Peers.
func (c *Cluster) AnyKey(after time.Time) bool { return c.registry.anyKey(after) }

// Stopped implements keyring.Peers. It is zero if a peer has answered AskAll. If the replicas
// used other values of Config.MaxAge, the moment is such that what caches hold from before it
// ends this replica's MaxAge after it.
func (c *Cluster) Stopped() time.Time { return c.registry.stoppedAt() }

// Patience implements keyring.Peers: a replica that has just died is waited for.
func (c *Cluster) Patience() time.Duration { return timing.Patience }

// Authenticate implements keyring.Voucher.
func (c *Cluster) Authenticate(k store.Key) store.Key { return c.secret.Authenticate(k) }

// Vouched implements keyring.Voucher.
func (c *Cluster) Vouched(k store.Key) bool { return c.secret.Vouched(k) }

// Changed implements keyring.Peers.
func (c *Cluster) Changed() {
	c.Ring()
	c.cfg.Notify()
}

// errTwice: see Ready.
var errTwice = problem.New(problem.Unavailable, "instance_id_twice",
	"another replica runs under the same cluster.instance_id")

// Ready returns nil if this replica may take traffic, or the reason why not: another live
// replica has its instance id, or one that entered earlier has other signing secrets.
func (c *Cluster) Ready() error { return c.registry.ready() }

// Accepted reports whether every other live replica has written that it accepts the signing
// secret with the kid, but those that are not ready because of their secrets.
func (c *Cluster) Accepted(kid string) bool { return c.registry.accepted(kid) }

// SecretsChanged has this replica write now which signing secrets it accepts. It never blocks.
func (c *Cluster) SecretsChanged() {
	c.registry.beatNow()
	c.Ring()
}

// SettingsChanged has this replica write now that its settings have another Config.Digest. It
// never blocks.
func (c *Cluster) SettingsChanged(digest string) {
	c.registry.changed(digest)
	c.registry.beatNow()
	c.Ring()
}

// NoSigner returns what the replica waits for that has no key to sign with, because of
// the error of Ring.Signer, and for how long at least, as far as that is known.
func (c *Cluster) NoSigner(err error) error {
	text, left := c.registry.waitingFor(c.lookup.lastFailed())
	left = max(left, problem.From(err).RetryAfter)
	if left > 0 {
		text += fmt.Sprintf("; %d s are left", (left+time.Second-1)/time.Second)
	}
	return problem.New(problem.Unavailable, "no_signing_key", "%s", text).Because(err).After(left)
}

// Leave deletes this replica's row in the registry. Its keys stay.
func (c *Cluster) Leave(ctx context.Context) error {
	return wrap(c.cfg.Registry.LeaveRegistry(ctx, c.cfg.Instance, c.cfg.Incarnation))
}

func wrap(err error) error {
	if err != nil {
		return fmt.Errorf("cluster: the registry: %w", err)
	}
	return nil
}

// rejections are the things that were said in a replica's name and not believed.
// Each is counted and logged once.
type rejections struct {
	logger *slog.Logger
	count  *prometheus.CounterVec

	mu   sync.Mutex // guards seen
	seen map[string]bool
}

// maxRejected bounds how many rejections are remembered. Those beyond it are counted
// each time and not logged.
const maxRejected = 1000

// add counts and logs one of them, unless it was added before.
func (r *rejections) add(ctx context.Context, reason, what, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := reason + " " + what + " " + name
	if r.seen[id] {
		return
	}
	r.count.WithLabelValues(reason).Inc()
	if len(r.seen) >= maxRejected {
		return
	}
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	r.seen[id] = true
	r.logger.WarnContext(ctx, "not believed: "+what+" in another replica's name", "name", name, "reason", reason)
}
