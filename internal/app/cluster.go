package app

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/bell"
	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// leaveTimeout bounds telling the other replicas that this one ends.
const leaveTimeout = 2 * time.Second

// join makes this replica known to the others. maxAge is for how long a key set
// that it serves may be used.
func (n *Node) join(ctx context.Context, o Options, registry *prometheus.Registry, instance string, maxAge time.Duration) error {
	cfg := o.Config
	registered, ok := n.parts.Store.(store.Registry)
	if !ok {
		return errors.New("cluster.enabled: this program brings its own store, which has no registry of replicas")
	}
	client, err := peerClient(cfg.Cluster)
	if err != nil {
		return err
	}
	if n.bell, err = n.openBell(registry); err != nil {
		return err
	}
	c := cluster.Config{
		Registry: registered, Secret: cfg.Cluster.Secret, Instance: instance, Version: o.Version, Digest: cfg.Digest(),
		MaxAge: maxAge, Algorithms: cfg.Cluster.Algorithms, URL: cfg.Cluster.AdvertiseURL,
		Refresh: time.Duration(cfg.Cluster.RefreshSec) * time.Second, Client: client,
		Tell: func() { n.bell.Ring(bell.Registry) },
		Now:  time.Now, NewID: func() (string, error) { return token.NewID(rand.Reader) },
		Logger: o.Logger, Registerer: registry,
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = accesstoken.Algorithms()
	}
	if cfg.Cluster.Discovery == "static" {
		c.Peers = func() []string { return cfg.Cluster.StaticPeers }
	}
	if cfg.Revocation.OnOutage.Allow {
		// Else it is not ready any more when others cease to count it as alive.
		c.CutOff = c.Refresh + 2*time.Second
	}
	n.cluster, err = cluster.Join(ctx, c)
	return err
}

// openBell makes the bell that has the registry and the revocation log looked at.
func (n *Node) openBell(registry *prometheus.Registry) (*bell.Bell, error) {
	c := bell.Config{DB: n.parts.DB, Logger: n.logger, Registerer: registry}
	if n.state.redis != nil {
		c.Redis = n.state.redis.Client
	}
	b, err := bell.New(c, map[bell.News]func(){
		bell.Registry:    func() { n.cluster.Ring() },
		bell.Revocations: n.parts.view.Ring,
	})
	if err == nil {
		n.parts.Revocations.Bell = func() { b.Ring(bell.Revocations) }
	}
	return b, err
}

// peerClient asks other replicas over HTTP. It goes through no proxy and follows
// nobody anywhere else.
func peerClient(cfg config.Cluster) (*http.Client, error) {
	roots, err := peerRoots(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	return &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 1,
			IdleConnTimeout:     2 * time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// peerRoots are the certificates in a file; nil means the system's.
func peerRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cluster.ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("cluster.ca_file: there is no certificate in %s", file)
	}
	return roots, nil
}

// readyInCluster is the part of Ready that has to do with the others.
func (n *Node) readyInCluster() error {
	if err := n.cluster.Ready(); err != nil {
		return err
	}
	if _, err := n.keys.Signer(); err != nil {
		return problem.New(problem.Unavailable, "no_signing_key", "%s", n.cluster.Waiting()).Because(err)
	}
	return nil
}

func (n *Node) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := n.cluster.Leave(ctx); err != nil {
		n.logger.Warn("the other replicas could not be told that this one ends; they will notice", "err", err)
	}
}
