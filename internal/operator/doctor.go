package operator

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/backup"
	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/doctor"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

const (
	// openTimeout bounds the opening of each backend for a doctor: one that is away is a finding,
	// and is not waited for.
	openTimeout = 10 * time.Second
	// doctorConnections is how many connections to the database a doctor uses, which may be the
	// last ones.
	doctorConnections = 2
)

// OpenDeployment opens what a doctor looks at, asks all replicas, and returns what closes it. The
// replicas are those at the base URLs; none: those that the configuration and the registry name.
//
// That a backend is away, or a replica, is in the deployment and no error. Nothing is written, and
// no SQLite file is made where there is none.
func OpenDeployment(ctx context.Context, cfg *config.Config, logger *slog.Logger, peers []string) (_ *doctor.Deployment, closeAll func() error, err error) {
	d := &doctor.Deployment{Config: cfg, Reach: doctor.All, Now: time.Now}
	var closers []func() error
	closeAll = func() error {
		var err error
		for _, c := range slices.Backward(closers) {
			err = errors.Join(err, c())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	if d.Front, err = DoctorFront(cfg.Cluster.CAFile); err != nil {
		return nil, nil, err
	}
	var records *sqlstore.Store // on d.DB
	if d.DB, d.DBErr = openForDoctor(ctx, cfg, logger); d.DBErr == nil {
		closers = append(closers, d.DB.Close)
		records = sqlstore.New(d.DB)
		d.Store = records
		d.Installation, _ = records.Setting(ctx, backup.InstallationSetting) // no id: one of an old version, or an empty database
	}
	closeState, err := openStateForDoctor(ctx, d, logger)
	if err != nil {
		return nil, nil, err
	}
	closers = append(closers, closeState)
	if !cfg.Cluster.Enabled {
		return d, closeAll, nil
	}
	clients, err := PeerClients(cfg.Cluster)
	if err != nil {
		return nil, nil, err
	}
	closers = append(closers, func() error { clients.Close(); return nil })
	asker, err := cluster.NewAsker(cfg.Cluster.Secret, clients.Get)
	if err != nil {
		return nil, nil, err
	}
	if d.ClusterErr = d.DBErr; d.DB != nil {
		var status cluster.Status
		if status, d.ClusterErr = cluster.ReadStatus(ctx, records, cfg.Cluster.Secret); d.ClusterErr == nil {
			d.Cluster = &status
		}
	}
	places := make([]discovery.Peer, len(peers))
	for i, base := range peers {
		places[i].URL = base
	}
	if len(peers) == 0 {
		places, d.DiscoveryErr = found(ctx, cfg.Cluster)
	}
	d.AskReplicas(ctx, doctor.Round{Asker: asker, Places: places, Registered: len(peers) == 0})
	return d, closeAll, nil
}

// openForDoctor opens the database as it is.
func openForDoctor(ctx context.Context, cfg *config.Config, logger *slog.Logger) (*sqldb.DB, error) {
	if err := databaseThere(cfg); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	few := *cfg
	few.Database.MaxConnections = min(max(few.Database.MaxConnections, 1), doctorConnections)
	return OpenDatabase(ctx, &few, logger)
}

// openStateForDoctor opens the shared state and Redis. What one replica has in its memory alone is
// no shared state.
func openStateForDoctor(ctx context.Context, d *doctor.Deployment, logger *slog.Logger) (closeState func() error, err error) {
	cfg := d.Config
	backend := cfg.StateBackend()
	if d.DB != nil && (backend == config.StateSQL || backend == config.StateTiered) {
		d.State = sqlstate.New(d.DB, time.Now)
	}
	closeState = func() error { return nil }
	if cfg.Redis.URL == "" {
		return closeState, nil
	}
	roots, err := Certificates("redis.ca_file", cfg.Redis.CAFile)
	if err != nil {
		return nil, err
	}
	if d.Redis, d.RedisErr = openRedisForDoctor(ctx, cfg.Redis.URL, roots); d.RedisErr == nil {
		closeState = func() error { d.Redis.Close(); return nil }
	}
	if backend != config.StateRedis || d.DB == nil {
		return closeState, nil
	}
	redis, err := OpenRedis(cfg, func() string { return cfg.Redis.URL }, d.Installation, logger)
	if err != nil {
		return nil, errors.Join(err, closeState())
	}
	d.State = redis
	closeClient := closeState
	return func() error { return errors.Join(redis.Close(), closeClient()) }, nil
}

// openRedisForDoctor connects to Redis, also to a server that takes no writes, which the shared
// state refuses.
func openRedisForDoctor(ctx context.Context, url string, roots *x509.CertPool) (rueidis.Client, error) {
	options, err := redisstate.ClientOption(url)
	if err != nil {
		return nil, err
	}
	if options.TLSConfig != nil {
		options.TLSConfig.RootCAs = roots
	}
	client, err := rueidis.NewClient(options)
	if err != nil {
		return nil, fmt.Errorf("redis.url: %w", redisstate.Cause(err))
	}
	return client, nil
}

// found returns where the configuration says that the replicas are. It returns none if the registry
// alone has them.
func found(ctx context.Context, cfg config.Cluster) ([]discovery.Peer, error) {
	list := discovery.NewList(slog.New(slog.DiscardHandler), func() {})
	service, err := url.Parse(cfg.ServiceURL)
	if err != nil {
		return nil, fmt.Errorf("cluster.service_url: %w", err)
	}
	switch cfg.Discovery {
	case config.DiscoveryStatic:
		list.Set(cfg.StaticPeers)
	case config.DiscoveryDNS:
		list.LookUp(ctx, net.DefaultResolver, service)
	case config.DiscoveryKubernetes:
		api, err := discovery.InCluster()
		if err != nil {
			return nil, err
		}
		list.ListKubernetes(ctx, api, service)
	default:
		return nil, nil
	}
	if len(list.Peers()) == 0 {
		return nil, fmt.Errorf("cluster.discovery: %s names no replica", cfg.Discovery)
	}
	return list.Peers(), nil
}

// DoctorFront returns the client of a deployment's Front.
func DoctorFront(caFile string) (*http.Client, error) {
	client, err := FrontClient(caFile)
	if err != nil {
		return nil, err
	}
	if client == nil {
		client = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	}
	client.Transport.(*http.Transport).DisableKeepAlives = true
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, nil
}

// FrontClient returns a client for server.public_url. It trusts the authority of the peers, in
// the file, and those of the system. Nil: the default client will do.
func FrontClient(caFile string) (*http.Client, error) {
	if caFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("cluster.ca_file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}}
	transport.Protocols = new(http.Protocols) // as package verify does: a dead connection goes with the request that times out
	transport.Protocols.SetHTTP1(true)
	return &http.Client{Transport: transport}, nil
}
