// Package watchword is an authentication and token service inside another Go
// program: the same replica that cmd/watchword runs, as an http.Handler.
//
//	cfg := watchword.DefaultConfig()
//	cfg.Server.PublicURL = "https://auth.example.com"
//	node, err := watchword.New(ctx, cfg)
//	…
//	defer node.Close()
//	server := &http.Server{
//		Addr: ":8080", Handler: node.Handler(), MaxHeaderBytes: 32 << 10,
//		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
//		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
//		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 32},
//	}
//	err = server.ListenAndServe()
//
// The feed's streams set deadlines of their own; without these, a client that sends
// or reads slowly holds a connection for as long as it likes.
package watchword

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/state"
	"github.com/watchword-auth/watchword/store"
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

// WithLogger sends the replica's log to l; without it, to slog.Default.
func WithLogger(l *slog.Logger) Option { return func(o *app.Options) { o.Logger = l } }

// WithState keeps sessions and other things that expire in a backend of your own,
// which package state/statetest should hold to its promises. state.backend must be
// auto. The caller closes the store, after the Node.
func WithState(s state.Store) Option { return func(o *app.Options) { o.State = s } }

// WithStore keeps users and everything else that lasts in a backend of your own,
// which package store/storetest should hold to its promises, instead of in
// database.url. It needs WithState as well, or a state.backend without a database;
// and a storage.key unless tokens.keys is memory. The caller closes the store,
// after the Node.
func WithStore(s store.Store) Option { return func(o *app.Options) { o.Store = s } }

// New starts a replica and returns when it may take traffic; its error says in one sentence
// why it cannot. A replica that joins a cluster may take traffic when the others have had
// its key for Config.Tokens.KeySetMaxAge. While the database or Redis is away it waits, for
// five minutes at most. It creates no administrator by itself: name one in Config.Admin or
// Config.Users. ctx bounds the start alone.
func New(ctx context.Context, cfg *Config, options ...Option) (*Node, error) {
	cfg.Complete()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	o := app.Options{Config: cfg, Logger: slog.Default(), Version: "embedded", SecretFiles: config.SecretFiles(os.Environ())}
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

// Close ends the replica. Shut the HTTP server down first, with Drain before it if
// resource servers follow the feed.
func (n *Node) Close() error { return n.node.Close() }

// Drain makes /readyz say that no more traffic should come, and ends the streams
// of the revocation feed, so that http.Server.Shutdown does not wait for them.
func (n *Node) Drain() { n.node.Drain() }
