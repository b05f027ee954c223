package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/canary"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

const (
	// canarySubject is the sub of a canary's token. No user has that id, so the token has
	// no rights.
	canarySubject = "canary"
	// canaryLife is how long a canary's token lives if it cannot be revoked.
	canaryLife = time.Minute
	// canaryBound is the bound of a resource server, which is the longest one.
	canaryBound = verify.DefaultMaxStaleness
)

// keepCanary measures in the background how soon a revoked token is refused.
func (n *Node) keepCanary(ctx context.Context, o Options, service *login.Service, registry *prometheus.Registry) error {
	cfg := o.Config
	took := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "watchword_revocation_propagation_seconds",
		Help:    "Time from the revocation of a token at this replica until it was refused, by replicas and by a resource server (telemetry.canary).",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	}, []string{"by"})
	failed := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "watchword_canary_failures_total",
		Help: "Rounds of telemetry.canary in which a good token was not accepted, or a revoked one was not refused.",
	})
	for _, c := range []prometheus.Collector{took, failed} {
		if err := registry.Register(c); err != nil {
			return fmt.Errorf("app: %w", err)
		}
	}
	client, err := frontClient(cfg.Cluster.CAFile)
	if err != nil {
		return err
	}
	verifier, err := newCanaryVerifier(cfg, cfg.Server.PublicURL, client, o.Logger)
	if err != nil {
		return err
	}
	own := canary.Watcher{Name: "this replica", Accepts: func(ctx context.Context, token string) (bool, error) {
		_, err := service.Verify(ctx, token)
		if err != nil && problem.From(err).Kind == problem.Unauthenticated {
			return false, nil
		}
		return err == nil, err
	}}
	n.loop(ctx, func(ctx context.Context) {
		defer verifier.Close()
		tick := time.NewTicker(cfg.Telemetry.Canary)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if n.Ready() != nil {
				continue // which is said elsewhere
			}
			watchers := []canary.Watcher{own}
			for _, at := range n.cluster.Others() {
				watchers = append(watchers, canary.Replica(at.URL, n.clients.Get(at.Name)))
			}
			replicas := len(watchers)
			watchers = append(watchers, canary.ResourceServer("a resource server", verifier))
			results, err := canary.Run(ctx, n.canaryToken(o), canaryBound, watchers)
			for i, r := range results {
				by := "replica"
				if i >= replicas {
					by = "resource_server"
				}
				if r.Err == nil {
					took.WithLabelValues(by).Observe(r.Refused.Seconds())
				} else {
					err = errors.Join(err, fmt.Errorf("%s: %w", r.Name, r.Err))
				}
			}
			if err != nil && ctx.Err() == nil {
				failed.Inc()
				o.Logger.WarnContext(ctx, "the canary found something wrong", "err", err)
			}
		}
	})
	return nil
}

// canaryToken issues and revokes a token that belongs to no user. Only its revocation is
// stored.
func (n *Node) canaryToken(o Options) canary.Token {
	cfg := o.Config
	var id string
	var expires time.Time
	return canary.Token{
		Issue: func(context.Context) (string, error) {
			signer, err := n.keys.Signer()
			if err != nil {
				return "", err
			}
			if id, err = token.NewID(rand.Reader); err != nil {
				return "", err
			}
			now := o.Now()
			expires = now.Add(canaryLife)
			return signer.Sign(token.Access{ClientID: token.FirstParty,
				Issuer: cfg.Tokens.Issuer, Audience: cfg.Tokens.Audience, Subject: canarySubject, ID: id,
				IssuedAt: now, NotBefore: now.Add(-operator.Leeway), ExpiresAt: expires,
			})
		},
		Revoke: func(ctx context.Context, _ string) error {
			_, err := n.parts.Revocations.Revoke(ctx, store.Revocation{
				Kind: string(revoked.Token), Subject: id, ExpiresAt: expires.Add(operator.Leeway), Actor: canarySubject, Reason: "canary",
			})
			return err
		},
	}
}

// frontClient returns a client for server.public_url. It trusts the authority of the peers
// and those of the system. Nil: the system's alone.
func frontClient(caFile string) (*http.Client, error) {
	if caFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("cluster.ca_file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("app: %w", err)
	}
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}}
	transport.Protocols = new(http.Protocols) // as package verify does: a dead connection goes with the request that times out
	transport.Protocols.SetHTTP1(true)
	return &http.Client{Transport: transport}, nil
}

// newCanaryVerifier returns the verifier of a resource server that follows the service at a
// URL.
func newCanaryVerifier(cfg *config.Config, base string, client *http.Client, logger *slog.Logger) (*verify.Verifier, error) {
	return verify.New(verify.Config{
		Issuer: cfg.Tokens.Issuer, Audience: cfg.Tokens.Audience, Leeway: operator.Leeway,
		KeySetURL: base + "/.well-known/jwks.json", RevocationsURL: base + "/api/revocations",
		HTTPClient: client, Logger: logger,
	})
}

// Canary measures once how soon all of some replicas and a resource server refuse a token. A
// user logs in and out at the first replica.
func Canary(ctx context.Context, cfg *config.Config, replicas []string, username, password string) ([]canary.Result, error) {
	clients, err := newPeerClients(cfg.Cluster)
	if err != nil {
		return nil, err
	}
	client := clients.Get("")
	verifier, err := newCanaryVerifier(cfg, replicas[0], client, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer verifier.Close()
	var watchers []canary.Watcher
	for _, base := range replicas {
		watchers = append(watchers, canary.Replica(base, client))
	}
	watchers = append(watchers, canary.ResourceServer("a resource server", verifier))
	return canary.Run(ctx, canary.Token{
		Issue: func(ctx context.Context) (string, error) {
			body, err := json.Marshal(httpapi.LoginRequest{Username: username, Password: password})
			if err != nil {
				return "", err
			}
			answer, err := post(ctx, client, replicas[0]+"/api/login", "", body, http.StatusOK)
			if err != nil {
				return "", err
			}
			var grant httpapi.Grant
			err = json.Unmarshal(answer, &grant)
			return grant.AccessToken, err
		},
		Revoke: func(ctx context.Context, token string) error {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), canaryBound) // also on Ctrl-C
			defer cancel()
			_, err := post(ctx, client, replicas[0]+"/api/logout", token, nil, http.StatusNoContent)
			return err
		},
	}, canaryBound, watchers)
}

// post returns the body of an answer with that status. Another status is an error.
func post(ctx context.Context, client *http.Client, url, token string, body []byte, status int) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, accesstoken.MaxKeySetLength))
	if err == nil && answer.StatusCode != status {
		var p httpkit.Problem
		_ = json.Unmarshal(text, &p) // a proxy's has none
		err = fmt.Errorf("%s answers %d %s", url, answer.StatusCode, p.Detail)
	}
	return text, err
}
