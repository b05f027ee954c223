// Package watchword is an authentication and token service inside another Go
// program: the same node that cmd/watchword runs, as an http.Handler.
//
//	cfg := watchword.DefaultConfig()
//	cfg.Server.PublicURL = "https://auth.example.com"
//	node, err := watchword.New(ctx, cfg)
//	…
//	defer node.Close()
//	http.ListenAndServe(":8080", node.Handler())
package watchword

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
)

// Config is everything that can be set; docs/configuration.md explains each field.
type Config = config.Config

// DefaultConfig returns the settings as they are when nothing is set.
func DefaultConfig() *Config { return config.Default() }

// LoadConfig reads a YAML file and the environment, as the command does. With an
// empty path it reads the environment alone.
func LoadConfig(path string) (*Config, error) { return config.Load(path, os.Environ()) }

// A Node is one replica.
type Node struct{ node *app.Node }

// An Option changes what New does.
type Option func(*app.Options)

// WithLogger sends the node's log to l; without it, to slog.Default.
func WithLogger(l *slog.Logger) Option { return func(o *app.Options) { o.Logger = l } }

// New starts a node and returns when it may take traffic, or says in one sentence
// why it cannot. It makes no administrator of its own accord: name one in
// Config.Admin or Config.Users. ctx bounds the start alone.
func New(ctx context.Context, cfg *Config, options ...Option) (*Node, error) {
	cfg.Complete()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	o := app.Options{Config: cfg, Logger: slog.Default(), Version: "embedded"}
	for _, option := range options {
		option(&o)
	}
	node, err := app.New(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := node.WaitReady(ctx); err != nil {
		return nil, errors.Join(err, node.Close())
	}
	return &Node{node}, nil
}

// Handler serves everything that docs/api.md describes. Mount it at the root of
// Config.Server.PublicURL.
func (n *Node) Handler() http.Handler { return n.node.Handler() }

// Close ends the node. Shut the HTTP server down first, with Drain before it if
// resource servers follow the feed.
func (n *Node) Close() error { return n.node.Close() }

// Drain makes /readyz say that no more traffic should come, and ends the streams
// of the revocation feed, so that http.Server.Shutdown does not wait for them.
func (n *Node) Drain() { n.node.Drain() }
