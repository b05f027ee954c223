package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/activity"
	"github.com/watchword-auth/watchword/internal/bell"
	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/doctor"
	"github.com/watchword-auth/watchword/internal/feed"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/newfile"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/revocation/redislog"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/trace"
	"github.com/watchword-auth/watchword/internal/trace/otlp"
	"github.com/watchword-auth/watchword/internal/web/page"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Options is what a replica needs besides its configuration.
type Options struct {
	Config *config.Config
	// Logger gets the replica's log. Entries that are written for a request have its id and
	// that of its trace.
	Logger *slog.Logger
	// Level is the least level that Logger writes, for changes of log.level. Nil: those need a
	// restart, because the program decides what its log is.
	Level   *slog.LevelVar
	Version string
	// Terminal receives the generated password of a first administrator, once; if it is no
	// terminal, it receives the name of the file with the password. Nil: no first
	// administrator is created.
	Terminal io.Writer
	// Store and State are backends that the program brings. They stay open when the
	// replica ends. Nil: those that the configuration names.
	Store store.Store
	State state.Store
	// Listener is the address on which the program serves the replica's handler. Nil: it
	// is not known, and the replica asks its peers to find out which of them it is itself.
	Listener net.Addr
	// MetricsApart leaves the metrics out of Handler: the program serves Metrics elsewhere.
	MetricsApart bool
	// SecretFiles are the files from which settings were read, by key (config.SecretFiles).
	// The users and passwords of the database and Redis are read from them again.
	SecretFiles map[string]string
	// Now tells the time, with a monotonic reading. Nil: time.Now.
	Now func() time.Time
}

// A Node is a running replica.
type Node struct {
	handler http.Handler
	metrics *httpapi.Metrics
	db      *sqldb.DB // nil: the program brings its own store
	store   store.Store
	kit     *page.Kit // of the pages; nil: there are none
	view    *revocation.View
	parts   *operator.Parts
	state   *shared
	keys    *signingKeys
	// instance is the name of this replica.
	instance string
	activity *activity.Service // nil: there are no pages to show it
	doctor   *doctor.Watch
	keeper   keysource.Keeper    // of private keys that are not in this process; nil: there is none
	revoked  *keyring.Tombstones // signing keys that were seen revoked
	cluster  replicas
	bell     *bell.Bell                  // of the cluster
	found    *discovery.List             // the other replicas; nil: they are in the registry
	clients  *cluster.Clients            // for requests to them
	follow   []func(ctx context.Context) // the background loops of a cluster
	health   *httpapi.Health
	logger   *slog.Logger
	traces   *otlp.Sender   // nil: there are none
	tracer   *trace.Tracer  // nil: the same
	level    *slog.LevelVar // of logger; nil: it is not known

	discovery config.Discovery // of the other replicas, since the start

	urls map[string]*backendURL // of the database and Redis, by key

	// onSecrets takes over what a configuration has as tokens.secret, tokens.previous_secrets,
	// tokens.pkcs11.pin and tokens.remote.token. Reload calls it when one of them has changed.
	// After an error, all those from before hold. Nil: nothing here uses them.
	onSecrets func(next *config.Config) error

	reload sync.Mutex
	loaded *config.Config // last; see Reload
	// running has the settings of the start, and those limits that hold now.
	running config.Config

	drained chan struct{} // closed when the replica takes no more traffic
	drain   sync.Once
	stop    context.CancelFunc
	loops   sync.WaitGroup
}

// New opens all backends, creates the users that the configuration names, and starts the
// background loops. The replica may take traffic when Ready returns nil. While the database
// or Redis is busy or away, New waits, for startPatience at most. ctx bounds the start alone.
func New(ctx context.Context, o Options) (_ *Node, err error) {
	cfg := o.Config
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Logger = slog.New(trace.Handler(o.Logger.Handler()))
	if o.Store != nil && cfg.Storage.Key == "" {
		switch cfg.KeysIn() {
		case config.KeysDatabase:
			return nil, errors.New("storage.key: it is needed to encrypt the signing keys in the store that this program brings; set it, or set tokens.keys to memory")
		case config.KeysPKCS11, config.KeysRemote:
			if _, err := operator.KeptBox(ctx, cfg, nil); err != nil {
				return nil, err
			}
		}
	}
	trusted, err := cfg.Server.Proxies()
	if err != nil {
		return nil, err
	}
	proxies := httpkit.Proxies{Trusted: trusted, Header: string(cfg.Server.ForwardedHeader)}
	registry := newRegistry(o.Version)

	n := &Node{cluster: &cluster.Alone{}, logger: o.Logger, level: o.Level, loaded: cfg, running: *cfg, drained: make(chan struct{})}
	n.urls = map[string]*backendURL{
		"database.url": newBackendURL("database.url", cfg.Database.URL, o.SecretFiles, o.Logger),
		"redis.url":    newBackendURL("redis.url", cfg.Redis.URL, o.SecretFiles, o.Logger),
	}
	start := newStartup(o.Logger)
	if n.instance, err = instanceID(cfg.Cluster.InstanceID); err != nil {
		return nil, err
	}
	if err := n.openTraces(o, registry); err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(n.tracer.With(context.WithoutCancel(ctx)))
	n.stop = stop
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	installation, err := n.openStore(ctx, o, registry, start)
	if err != nil {
		return nil, err
	}
	// Before there is a key to sign with.
	if err = start.await(ctx, "note the longest lifetimes", func(ctx context.Context) error {
		return revocation.Promise(ctx, n.store, operator.Lifetimes(cfg))
	}); err != nil {
		return nil, err
	}
	n.revoked = keyring.NewTombstones(keyring.LongestLife(cfg.Tokens.KeyDuration, cfg.Tokens.TokenDuration, keySetAge(cfg), cfg.PublishAhead()), o.Now)
	n.view, err = revocation.NewView(revocation.Config{
		Store: n.store, Poll: cfg.Revocation.Poll, MaxStaleness: cfg.Revocation.MaxStaleness,
		OnOutage: revocation.Outage{Allow: cfg.Revocation.OnOutage.Allow, For: cfg.Revocation.OnOutage.For},
		Shared:   cfg.Revocation.Check == config.CheckShared,
		OnKey:    n.seeRevoked,
		Now:      o.Now, Logger: o.Logger, Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	if n.state, err = openState(ctx, backing{
		config: cfg, redis: n.urls["redis.url"].now, db: n.db, view: n.view, id: installation, own: o.State, now: o.Now, logger: o.Logger, registerer: registry, start: start,
	}); err != nil {
		return nil, err
	}
	if cfg.Revocation.Check == config.CheckShared && n.state.redis != nil {
		n.view.Share(redislog.New(n.state.redis, installation))
		n.checkEviction(ctx)
	}
	sessions := openSessions(cfg, n.state, n.view, o.Now, o.Logger, registry)
	holders := n.holders(o)
	var box *seal.Box
	if err := start.await(ctx, "find the key of second factors", func(ctx context.Context) (err error) {
		box, err = operator.FactorBox(ctx, cfg, holders)
		return err
	}); err != nil {
		return nil, err
	}
	n.parts, err = operator.Assemble(operator.Assembly{
		Config: cfg, DB: n.db, Store: n.store, View: n.view, OnEnded: sessions.EndAll, Box: box,
		State: n.state, Replicas: func() int { return n.cluster.Live() },
		Now: o.Now, Logger: o.Logger, Registerer: registry,
	})
	if err != nil {
		return nil, err
	}
	if err := n.openKeys(ctx, o, registry, start); err != nil {
		return nil, err
	}
	n.loop(background, n.view.Run)
	n.loop(background, n.parts.Audit.Run)
	n.loop(background, n.keys.Run)
	for _, run := range n.follow {
		n.loop(background, run)
	}
	n.loop(background, n.sweepState)
	n.loop(background, sessions.Run)

	if err := start.await(ctx, "make the first users", func(ctx context.Context) error {
		return n.createUsers(ctx, cfg, o.Terminal)
	}); err != nil {
		return nil, err
	}

	n.loop(background, n.checkUsers)
	n.loop(background, n.parts.Directory.FollowCensus)
	if cfg.Pages.Enabled {
		n.activity = activity.New(activity.Config{
			State: n.state, Instance: n.instance, Gatherer: registry, Rights: n.parts.Directory, Now: o.Now, Logger: o.Logger, Registerer: registry,
		})
		n.loop(background, n.activity.Run)
	}

	userInfo := login.UserInfo{Username: cfg.Tokens.UserInfo.Username, FullName: cfg.Tokens.UserInfo.FullName, Email: cfg.Tokens.UserInfo.Email}
	service := login.New(login.Config{
		People: n.parts.Directory, Store: n.store, Sessions: sessions, Keys: n.keys, Key: n.find, SecretKids: n.secretKids,
		Revocations: n.parts.Revocations, View: n.view, Audit: n.parts.Audit, Limits: n.parts.Limits, Factors: n.parts.Factors,
		Rules: operator.Rules(cfg), ClockSkew: operator.Leeway, Issuer: cfg.Tokens.Issuer, Audience: cfg.Tokens.Audience, UserInfo: userInfo,
		TokenDuration: cfg.Tokens.TokenDuration, SessionsReturn: n.state.forgets, Now: o.Now, Rand: rand.Reader, Logger: o.Logger, Registerer: registry,
	})
	self, err := n.self(o, service)
	if err != nil {
		return nil, err
	}
	if n.doctor, err = n.openDoctor(o, self, registry); err != nil {
		return nil, err
	}
	n.loop(background, n.doctor.Run)
	backends := map[string]func(context.Context) error{"database": n.store.Ping}
	maps.Copy(backends, n.state.servers)
	signer := ""
	if n.keeper != nil {
		signer = string(cfg.KeysIn())
		backends[signer] = n.keeper.Ping
	}
	n.health = &httpapi.Health{
		Backends: backends, Signer: signer, Ready: n.Ready, Checks: n.checked, Timeout: cfg.Health.Timeout, ReadyWithoutWrites: cfg.Revocation.OnOutage.Allow,
	}
	if cfg.StateBackend() == config.StateTiered {
		n.health.Dispensable = []string{"redis"}
	}
	registry.MustRegister(n.health.Collector())
	if cfg.Telemetry.Canary > 0 {
		if err := n.keepCanary(background, o, service, registry); err != nil {
			return nil, err
		}
	}
	n.metrics = &httpapi.Metrics{Registry: registry}
	budget := httpkit.NewBudget(cfg.Server.MaxRequestsPerUser, cfg.Server.MaxRequestsPerAddress, registry, o.Logger)
	served := httpapi.Config{
		Auth: &httpapi.Auth{Login: service, Proxies: proxies, UserInfo: userInfo},
		KeySets: &httpapi.KeySets{
			Keys: n.cluster.Keys, Local: n.keys.Published, Answer: n.cluster.AnswerKeys, MutualTLS: cfg.Cluster.CertFile != "",
			MayBeEmpty: n.keys.secret, MaxAge: cfg.Tokens.KeySetMaxAge, StaleFor: cfg.Tokens.KeySetStaleFor(),
		},
		Metadata: &httpapi.Metadata{Issuer: cfg.Tokens.Issuer, PublicURL: cfg.Server.PublicURL},
		Feed: &feed.Feed{
			View: n.view, Heartbeat: cfg.Revocation.Poll, Done: n.drained, Answer: n.cluster.AnswerFeed,
			Proxies: proxies, MutualTLS: cfg.Cluster.CertFile != "",
		},
		Peers: &httpapi.Peers{
			Answer: n.cluster.AnswerToken, Accepts: service.VerifyForPeer, MutualTLS: cfg.Cluster.CertFile != "",
			Examined: n.examined(self, proxies),
		},
		Health: n.health, Login: service, Factors: n.parts.Factors, Directory: n.parts.Directory, Cluster: n.cluster, Limits: n.parts.LimitAdministration(), Proxies: proxies, Origins: cfg.Server.CORSOrigins,
		Metrics: registry, MetricsApart: o.MetricsApart, Tracer: n.tracer, FromReplica: n.cluster.VouchesTrace, Logger: o.Logger, Version: o.Version, Budget: budget,
	}
	if cfg.Pages.Enabled {
		if served.Pages, err = n.pages(background, o, service, proxies, budget); err != nil {
			return nil, err
		}
	}
	served.Feed.Register(registry)
	n.handler = httpapi.New(served)
	return n, nil
}

// Handler serves everything that the replica answers over HTTP.
func (n *Node) Handler() http.Handler { return n.handler }

// Metrics serves the metrics alone, for a listener of their own.
func (n *Node) Metrics() http.Handler { return n.metrics.Apart() }

// Ready returns nil when the replica may take traffic: it has a key to sign with and a fresh
// view of the revocations.
func (n *Node) Ready() error {
	if err := n.cluster.Ready(); err != nil {
		return err
	}
	if _, err := n.keys.Signer(); err != nil {
		if n.keys.secret || errors.Is(err, keysource.ErrNoNewKey) { // no other replica has to do with it
			return err
		}
		return n.cluster.NoSigner(err)
	}
	return n.view.Ready()
}

// WaitReady returns nil as soon as Ready does. When ctx ends before, it returns the reason of
// Ready.
func (n *Node) WaitReady(ctx context.Context) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		err := n.Ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// Drain makes /readyz answer 503 and ends the streams of the feed, which would never end by
// themselves. The replica still answers.
func (n *Node) Drain() {
	n.drain.Do(func() {
		n.health.Drain()
		close(n.drained)
	})
}

// Close stops the background loops and closes the stores. No request may be under way.
func (n *Node) Close() error {
	n.stop()
	n.loops.Wait()
	var err error
	n.leave()
	if n.clients != nil {
		n.clients.Close()
	}
	if n.state != nil {
		err = n.state.close()
	}
	if n.keeper != nil {
		err = errors.Join(err, n.keeper.Close())
	}
	if n.db != nil {
		err = errors.Join(err, n.db.Close())
	}
	if n.traces != nil {
		n.traces.Close()
	}
	return err
}

func (n *Node) loop(ctx context.Context, run func(context.Context)) {
	n.loops.Go(func() { run(ctx) })
}

// secretKids returns all kids of the signing secret, as it was configured last, that has the given
// one among them.
func (n *Node) secretKids(kid string) []string {
	n.reload.Lock()
	defer n.reload.Unlock()
	return operator.SecretKids(n.loaded, kid)
}

// openStore opens and migrates the database, or takes the store that the program brings. It
// returns the id of the installation; if Redis is not used, it may be "".
func (n *Node) openStore(ctx context.Context, o Options, registry *prometheus.Registry, start *startup) (installation string, err error) {
	identify := func(ctx context.Context) error {
		installation, err = operator.Installation(ctx, n.store)
		return err
	}
	if n.store = o.Store; n.store != nil {
		if backend := o.Config.StateBackend(); backend != config.StateRedis && backend != config.StateTiered {
			return "", nil
		}
		err = start.await(ctx, "read the installation's id", identify)
		return installation, err
	}
	if err := start.await(ctx, "open the database", func(ctx context.Context) (err error) {
		n.db, err = operator.OpenMeasured(ctx, o.Config, n.urls["database.url"].now, o.Logger, registry)
		return err
	}); err != nil {
		return "", err
	}
	n.store = sqlstore.New(n.db)
	err = start.await(ctx, "migrate the database", func(ctx context.Context) error {
		if err := operator.UpdateSchema(ctx, n.db, o.Logger); err != nil {
			return err
		}
		return identify(ctx) // before there is a user
	})
	return installation, err
}

// seeRevoked takes in that the revocation log has a signing key. If it is this replica's, the
// ring replaces it at once: tokens of it are refused from now on.
func (n *Node) seeRevoked(key revoked.ID, until time.Time) {
	n.revoked.Entry(key, until)
	if n.keys != nil && n.keys.Ring != nil {
		n.keys.Wake()
	}
}

// keySetAge is for how long a cache may go on with a key set of this replica.
func keySetAge(cfg *config.Config) time.Duration {
	return cfg.Tokens.KeySetMaxAge + cfg.Tokens.KeySetStaleFor()
}

// checkEviction warns if Redis may forget revocations.
func (n *Node) checkEviction(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // it may be away
	defer cancel()
	if err := n.state.redis.Check(ctx); err != nil {
		n.logger.Warn("with revocation.check shared, the database is asked about every token while Redis may forget revocations, or is away", "err", err)
	}
}

// instanceID returns the configured name of this replica, or the host's name with a random
// part that is new at each start, so that no two replicas share one by accident.
func instanceID(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("cluster.instance_id: the host has no name; set one: %w", err)
	}
	host = strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' {
			return c
		}
		return '-'
	}, host)
	return host[:min(len(host), 32)] + "-" + strings.ToLower(rand.Text()[:6]), nil
}

// checkUsers notes by what those users are recognised whom a version without that has made,
// and logs who of them has what another user has, too.
func (n *Node) checkUsers(ctx context.Context) {
	for {
		clashes, err := n.parts.Directory.CheckUsers(ctx, false)
		for _, c := range clashes[:min(len(clashes), 20)] {
			n.logger.Warn("another user has the same e-mail address, or a username that looks the same; give one of them another one",
				"user", c.User.ID, "what", c.What, "other", c.Other)
		}
		if len(clashes) > 20 {
			n.logger.Warn("there are more such users; watchword user check lists them", "users", len(clashes))
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		n.logger.Warn("the users of an earlier version could not be checked; it is tried again", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Minute):
		}
	}
}

// createUsers creates the users that the configuration names, and in an empty SQLite database
// an administrator with a generated password.
func (n *Node) createUsers(ctx context.Context, cfg *config.Config, terminal io.Writer) error {
	d := n.parts.Directory
	existing, err := n.store.Users(ctx, store.Page{Limit: 1})
	if err != nil {
		return fmt.Errorf("app: users: %w", err)
	}
	if cfg.Admin.Username != "" {
		if _, err := d.EnsureAdministrator(ctx, directory.Bootstrap{Username: cfg.Admin.Username, Password: cfg.Admin.Password}); err != nil {
			return fmt.Errorf("the administrator of ADMIN_GUI_USERNAME could not be made: %w", err)
		}
	}
	if cfg.Users.InitFile != "" {
		if _, err := d.ApplyInitFile(ctx, cfg.Users.InitFile); err != nil {
			return err
		}
	}
	switch {
	case terminal == nil || !cfg.Database.IsSQLite():
		return nil
	case len(existing) > 0:
		return newfile.RemovePartial(doctor.AdminPasswordFile(cfg))
	}
	return n.firstAdministrator(ctx, cfg, terminal)
}
