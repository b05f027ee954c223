package operator

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/watchword-auth/watchword/internal/canary"
	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// CanaryBound is how long a watcher of the canary may accept a revoked token. It is the bound
// of a resource server, which is the longest one.
const CanaryBound = verify.DefaultMaxStaleness

// Canary measures once how soon all of some replicas and a resource server refuse a token. A
// user logs in and out at the first replica. The others are asked as replicas ask each other,
// so that nobody without the cluster's secret sees the user's token.
func Canary(ctx context.Context, cfg *config.Config, replicas []string, username, password string) ([]canary.Result, error) {
	clients, err := PeerClients(cfg.Cluster)
	if err != nil {
		return nil, err
	}
	defer clients.Close()
	client, first := clients.Get(""), replicas[0]
	watchers := []canary.Watcher{canary.Replica(first, client)} // which has issued the token
	if len(replicas) > 1 {
		if cfg.Cluster.Secret == "" {
			return nil, errors.New("cluster.secret is not set: a user's token is sent to other replicas encrypted under it; set it as it is there, or name one URL only")
		}
		asker, err := cluster.NewAsker(cfg.Cluster.Secret, clients.Get)
		if err != nil {
			return nil, err
		}
		for _, base := range replicas[1:] {
			watchers = append(watchers, canary.Watcher{Name: base, Accepts: func(ctx context.Context, token string) (bool, error) {
				return asker.Accepts(ctx, discovery.Peer{URL: base}, token)
			}})
		}
	}
	verifier, err := ResourceServer(cfg, first, cfg.Tokens.Audience, client, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer verifier.Close()
	watchers = append(watchers, canary.ResourceServer("a resource server", verifier))
	return canary.Run(ctx, canary.Token{
		Issue: func(ctx context.Context) (string, error) {
			body, err := json.Marshal(httpapi.LoginRequest{Username: username, Password: password})
			if err != nil {
				return "", err
			}
			answer, err := post(ctx, client, first+"/api/login", "", body, http.StatusOK)
			if err != nil {
				return "", err
			}
			var grant httpapi.Grant
			err = json.Unmarshal(answer, &grant)
			return grant.AccessToken, err
		},
		Revoke: func(ctx context.Context, token string) error {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), CanaryBound) // also on Ctrl-C
			defer cancel()
			_, err := post(ctx, client, first+"/api/logout", token, nil, http.StatusNoContent)
			return err
		},
	}, CanaryBound, watchers)
}

// ResourceServer returns the verifier of a resource server that follows the service at a URL
// and accepts tokens for an audience, also those of the configured secrets. A nil client is the one of package verify.
func ResourceServer(cfg *config.Config, base string, audience []string, client *http.Client, logger *slog.Logger) (*verify.Verifier, error) {
	var secrets []string
	for _, s := range cfg.SharedSecrets() {
		secrets = append(secrets, s.Text)
	}
	return verify.New(verify.Config{
		Secrets: secrets, Issuer: cfg.Tokens.Issuer, Audience: audience, Leeway: Leeway,
		KeySetURL: base + "/.well-known/jwks.json", RevocationsURL: base + "/api/revocations",
		HTTPClient: client, Logger: logger,
	})
}

// PeerClients returns the HTTP clients for requests to replicas.
func PeerClients(cfg config.Cluster) (*cluster.Clients, error) {
	roots, err := Certificates("cluster.ca_file", cfg.CAFile)
	if err != nil {
		return nil, err
	}
	return cluster.NewClients(cluster.ClientConfig{Roots: roots, CertFile: cfg.CertFile, KeyFile: cfg.KeyFile})
}

// Certificates returns the authorities in the file that a setting names; nil: the system's.
func Certificates(key, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: there is no certificate in %s", key, file)
	}
	return roots, nil
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
