package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/bell"
	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/internal/trace"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// leaveTimeout bounds the notice to the other replicas that this one ends.
const leaveTimeout = 2 * time.Second

// replicas are all replicas, this one among them: *cluster.Cluster, or *cluster.Alone.
type replicas interface {
	keyring.Peers
	cluster.Viewer
	Serve(local cluster.Local)
	Keys() *accesstoken.KeySet
	Find(kid string) (accesstoken.Key, error)
	Others() []discovery.Peer
	Live() int
	Accepts(ctx context.Context, at discovery.Peer, token string) (bool, error)
	AnswerKeys(nonce string) (body []byte, instance, mac string, err error)
	AnswerFeed(nonce, log string, after int64, body []byte) (instance, mac string, err error)
	AnswerToken(nonce string, q cluster.TokenQuestion, accepts func(token string) (bool, error)) (body []byte, instance, mac string, err error)
	AnswerExamination(ctx context.Context, nonce string, q cluster.ExamineQuestion, answer func(ctx context.Context, question []byte) ([]byte, error)) (body []byte, instance, mac string, err error)
	Ready() error
	Accepted(kid string) bool
	SecretsChanged()
	SettingsChanged(digest string)
	VouchesTrace(r *http.Request) bool
	NoSigner(err error) error
	Leave(ctx context.Context) error
}

// join makes this replica known to the others. maxAge is how long a cache may use a key set
// of this replica.
func (n *Node) join(ctx context.Context, o Options, registry *prometheus.Registry, instance string, maxAge time.Duration, start *startup) (err error) {
	cfg := o.Config
	registered, ok := n.store.(store.Registry)
	if !ok {
		return errors.New("cluster.enabled: this program brings its own store, which has no registry of replicas")
	}
	incarnation, err := token.NewID(rand.Reader)
	if err != nil {
		return err
	}
	if n.clients, err = operator.PeerClients(cfg.Cluster); err != nil {
		return err
	}
	var joined *cluster.Cluster
	if n.bell, err = n.openBell(registry, func() { joined.Ring() }); err != nil {
		return err
	}
	c := cluster.Config{
		Registry: registered, Secret: cfg.Cluster.Secret, Instance: instance, Incarnation: incarnation, Version: o.Version, Digest: cfg.Digest(),
		MaxAge: maxAge, Revoked: n.revoked, Algorithms: cfg.Cluster.Algorithms, URL: cfg.Cluster.AdvertiseURL,
		OwnURLs: func() []string { return ownURLs(cfg.Cluster.AdvertiseURL, o.Listener, cfg.Server.TLS.CertFile != "") },
		Refresh: time.Duration(cfg.Cluster.RefreshSec) * time.Second, Client: n.clients.Get,
		Secrets: n.keys.kids, Shared: cfg.KeysIn() != config.KeysMemory,
		Notify: func() { n.bell.Ring(bell.Registry) },
		Now:    o.Now, Logger: o.Logger, Registerer: registry,
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = accesstoken.Algorithms()
	}
	n.discovery = cfg.Cluster.Discovery
	if n.discovery != config.DiscoveryDatabase {
		n.found = discovery.NewList(o.Logger, func() {
			if joined != nil { // else Join asks them
				joined.AskPeers()
			}
		})
		c.Peers = n.found.Peers
	}
	find, err := finder(cfg.Cluster, n.found, discovery.InCluster)
	if err != nil {
		return err
	}
	find.first(ctx)
	ctx, t := trace.Begin(n.tracer.With(ctx), "join the cluster")
	defer func() { t.End(err) }()
	if err := start.await(ctx, "join the cluster", func(ctx context.Context) (err error) {
		joined, err = cluster.Join(ctx, c)
		return err
	}); err != nil {
		return err
	}
	joined.AskAll(ctx)
	n.cluster = joined
	n.view.Follow(joined)
	n.view.Learn(ctx)
	n.follow = []func(context.Context){joined.Run, n.bell.Run, find.run}
	return nil
}

// A find keeps the list of the other replicas up to date.
type find struct {
	first func(ctx context.Context) // looks once, so that the others can be asked at the start
	run   func(ctx context.Context) // until ctx ends
}

// finder returns what fills the list of the other replicas.
func finder(cfg config.Cluster, found *discovery.List, inCluster func() (*discovery.Kubernetes, error)) (find, error) {
	nothing := func(context.Context) {}
	service, err := url.Parse(cfg.ServiceURL)
	if err != nil {
		return find{}, fmt.Errorf("cluster.service_url: %w", err)
	}
	switch cfg.Discovery {
	case config.DiscoveryStatic:
		found.Set(cfg.StaticPeers)
	case config.DiscoveryDNS:
		every := time.Duration(cfg.RefreshSec) * time.Second
		return find{
			func(ctx context.Context) { found.LookUp(ctx, net.DefaultResolver, service) },
			func(ctx context.Context) { found.RunDNS(ctx, net.DefaultResolver, service, every) },
		}, nil
	case config.DiscoveryKubernetes:
		api, err := inCluster()
		if err != nil {
			return find{}, err
		}
		return find{
			func(ctx context.Context) { found.ListKubernetes(ctx, api, service) },
			func(ctx context.Context) { found.RunKubernetes(ctx, api, service) },
		}, nil
	}
	return find{nothing, nothing}, nil
}

// openBell makes the bell. When another replica rings it, the revocation log, the keys and,
// by ring, the registry are read.
func (n *Node) openBell(registry *prometheus.Registry, ring func()) (*bell.Bell, error) {
	c := bell.Config{DB: n.db, Logger: n.logger, Registerer: registry}
	if n.state.redis != nil {
		c.Redis, c.Installation = n.state.redis.Client, n.state.redis.Installation
	}
	b, err := bell.New(c, map[bell.News]func(){
		bell.Registry: func() {
			ring()
			n.keys.Wake() // one of its keys may have been revoked
		},
		bell.Revocations: n.view.Ring,
	})
	if err == nil {
		n.parts.Revocations.Bell = func() { b.Ring(bell.Revocations) }
	}
	return b, err
}

// Reload takes over the settings that a running replica can change: the users and passwords of
// backends, the list of peers, the limits, the level of the log, and the secrets for signing. It
// logs those that need a restart: what is written under the storage key or the cluster's secret,
// by this replica and by others, is read under it.
func (n *Node) Reload(next *config.Config) {
	n.reload.Lock()
	defer n.reload.Unlock()
	var secrets []string // the settings of them that have changed
	limits := false      // any of them has
	urls := map[string]string{"database.url": next.Database.URL, "redis.url": next.Redis.URL}
	for _, c := range n.loaded.Changes(next) {
		if u := n.urls[c.Key]; u != nil && u.offer(urls[c.Key]) {
			continue
		}
		section, _, _ := strings.Cut(c.Key, ".")
		switch {
		case c.Live && section == "tokens" && n.onSecrets != nil:
			secrets = append(secrets, c.Key)
			continue
		case c.Live && section == "limits":
			limits = true
		case c.Live && c.Key == "log.level" && n.level != nil:
			to, _ := levelOf(next.Log.Level) // config has checked it
			setLevel(n.level, to, n.logger, c.Key)
			continue
		case c.Live && c.Key == "cluster.static_peers" && n.discovery == config.DiscoveryStatic: // it may have been another one at the start
			n.found.Set(next.Cluster.StaticPeers)
		default:
			n.logger.Warn("the configuration has changed in what needs a restart", "key", c.Key, "old", c.Old, "new", c.New)
			continue
		}
		n.logger.Info("the configuration has changed", "key", c.Key, "old", c.Old, "new", c.New)
	}
	if limits {
		n.parts.Limits.Change(operator.LimitRules(next.Limits))
		n.running.Limits = next.Limits
		n.cluster.SettingsChanged(n.running.Digest())
	}
	if len(secrets) > 0 {
		next = n.takeSecrets(next, secrets)
	}
	n.loaded = next
}

// takeSecrets has the secrets of a configuration taken over, and returns the configuration that
// now holds: after an error, the one with the secrets from before.
func (n *Node) takeSecrets(next *config.Config, changed []string) *config.Config {
	before := n.loaded.Tokens
	if err := n.onSecrets(next); err != nil {
		n.logger.Error("the changed secrets cannot be used; going on with those before", "keys", changed, "err", err)
		kept := *next
		kept.Tokens.Secret, kept.Tokens.PreviousSecrets = before.Secret, before.PreviousSecrets
		kept.Tokens.PKCS11.PIN, kept.Tokens.Remote.Token = before.PKCS11.PIN, before.Remote.Token
		return &kept
	}
	n.logger.Info("the secrets have changed", "keys", changed)
	isFormer := func(s config.SharedSecret) bool { return s.Text == before.Secret }
	if before.Secret != "" && !slices.ContainsFunc(next.SharedSecrets(), isFormer) {
		n.logger.Warn("the former tokens.secret is not among tokens.previous_secrets: its tokens are refused from now on")
	}
	return next
}

func (n *Node) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := n.cluster.Leave(ctx); err != nil {
		n.logger.Warn("the other replicas could not be told that this one ends; they will notice", "err", err)
	}
}
