package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/watchword-auth/watchword/internal/secretfile"
)

// ClientConfig is what Clients are made of.
type ClientConfig struct {
	// Roots are the authorities that vouch for the peers' certificates. Nil: those of
	// the system.
	Roots *x509.CertPool
	// CertFile and KeyFile hold this replica's own certificate, for peers that ask for
	// one. They are read for every connection, since certificates are renewed. Empty:
	// it has none.
	CertFile, KeyFile string
}

// Clients ask other replicas over HTTP. They use no proxy and follow no redirect.
type Clients struct {
	tls *tls.Config

	mu     sync.Mutex // guards byName
	byName map[string]*http.Client
}

// NewClients fails if the certificate cannot be read.
func NewClients(cfg ClientConfig) (*Clients, error) {
	c := &Clients{tls: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots}, byName: map[string]*http.Client{}}
	if cfg.CertFile == "" {
		return c, nil
	}
	load := func() (*tls.Certificate, error) {
		cert, err := secretfile.KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cluster.cert_file: %w", err)
		}
		return &cert, nil
	}
	c.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	_, err := load()
	return c, err
}

// Get returns the client for peers whose certificate is for the name. An empty name
// stands for the host of their URL.
func (c *Clients) Get(name string) *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if client := c.byName[name]; client != nil {
		return client
	}
	tls := c.tls.Clone()
	tls.ServerName = name
	c.byName[name] = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: tls, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 1, IdleConnTimeout: 2 * time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c.byName[name]
}

// Close ends the connections, none of which may be in use.
func (c *Clients) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.byName {
		client.CloseIdleConnections()
	}
}
