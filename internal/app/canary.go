package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/canary"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/internal/trace"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/revoked"
)

const (
	// canarySubject is the sub of a canary's token. No user has that id, so the token has
	// no rights.
	canarySubject = "canary"
	// canaryLife is how long a canary's token lives if it cannot be revoked.
	canaryLife = time.Minute
)

var canaryAudience = []string{token.CanaryAudience}

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
	for _, by := range []string{"replica", "resource_server"} {
		took.WithLabelValues(by)
	}
	for _, c := range []prometheus.Collector{took, failed} {
		if err := registry.Register(c); err != nil {
			return fmt.Errorf("app: %w", err)
		}
	}
	client, err := operator.FrontClient(cfg.Cluster.CAFile)
	if err != nil {
		return err
	}
	open := func() (*verify.Verifier, error) {
		return operator.ResourceServer(n.present(), cfg.Server.PublicURL, canaryAudience, client, o.Logger)
	}
	secrets := sharedSecrets(cfg)
	verifier, err := open()
	if err != nil {
		return err
	}
	n.loop(ctx, func(ctx context.Context) {
		defer func() { verifier.Close() }()
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
			if now := sharedSecrets(n.present()); !slices.Equal(now, secrets) {
				next, err := open()
				if err != nil {
					o.Logger.WarnContext(ctx, "the canary cannot use the changed secrets", "err", err)
					continue
				}
				verifier.Close()
				verifier, secrets = next, now
			}
			watchers := []canary.Watcher{{Name: "this replica", Accepts: service.VerifyForPeer}}
			for _, at := range n.cluster.Others() {
				watchers = append(watchers, canary.Watcher{Name: at.URL, Accepts: func(ctx context.Context, token string) (bool, error) {
					return n.cluster.Accepts(ctx, at, token)
				}})
			}
			replicas := len(watchers)
			watchers = append(watchers, canary.ResourceServer("a resource server", verifier))
			measuring, t := trace.Begin(ctx, "measure a revocation")
			results, err := canary.Run(measuring, n.canaryToken(o), operator.CanaryBound, watchers)
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
			t.End(err)
			if err != nil && ctx.Err() == nil {
				failed.Inc()
				o.Logger.WarnContext(measuring, "the canary found something wrong", "err", err)
			}
		}
	})
	return nil
}

// canaryToken issues and revokes a token that belongs to no user, and that nothing accepts but
// a watcher. Only its revocation is stored.
func (n *Node) canaryToken(o Options) canary.Token {
	var id string
	return canary.Token{
		Issue: func(context.Context) (token string, err error) {
			token, id, err = n.issueCanary(o)
			return token, err
		},
		Revoke: func(ctx context.Context, _ string) error { return n.revokeCanary(ctx, o, id) },
	}
}

func (n *Node) issueCanary(o Options) (text, id string, err error) {
	signer, err := n.keys.Signer()
	if err != nil {
		return "", "", err
	}
	if id, err = token.NewID(rand.Reader); err != nil {
		return "", "", err
	}
	now := o.Now()
	text, err = signer.Sign(token.Access{ClientID: token.FirstParty,
		Issuer: o.Config.Tokens.Issuer, Audience: canaryAudience, Subject: canarySubject, ID: id,
		IssuedAt: now, NotBefore: now.Add(-operator.Leeway), ExpiresAt: now.Add(canaryLife),
	})
	return text, id, err
}

// revokeCanary revokes the token with the id, which was issued before.
func (n *Node) revokeCanary(ctx context.Context, o Options, id string) error {
	_, err := n.parts.Revocations.Revoke(ctx, store.Revocation{
		Kind: string(revoked.Token), Subject: id, ExpiresAt: o.Now().Add(canaryLife + operator.Leeway), Actor: canarySubject, Reason: "canary",
	})
	return err
}
