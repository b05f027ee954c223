package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/seal"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Leeway is by how much the clocks of replicas and resource servers may differ.
const Leeway = 5 * time.Second

// Parts is what works without a running node: the command line's half.
type Parts struct {
	DB          *sqldb.DB // nil if the program brought its own store
	Store       store.Store
	Directory   *directory.Service
	Audit       *audit.Trail
	Revocations *revocation.Log

	view *revocation.View // a node's; nil for the command line
}

// Open opens the database that cfg names, brings its schema up to date and puts
// the use cases on it. What is taken back through these parts is in the log when
// the call returns; running replicas read it at their next poll.
func Open(ctx context.Context, cfg *config.Config, logger *slog.Logger) (*Parts, error) {
	return open(ctx, cfg, nil, time.Now, logger, prometheus.NewRegistry(), nil, nil)
}

// OpenExisting is Open for who only reads: a SQLite file that is not there is an
// error instead of an empty one.
func OpenExisting(ctx context.Context, cfg *config.Config, logger *slog.Logger) (*Parts, error) {
	if err := databaseThere(cfg); err != nil {
		return nil, err
	}
	return Open(ctx, cfg, logger)
}

// Close closes the database.
func (p *Parts) Close() error {
	if p.DB == nil {
		return nil
	}
	return p.DB.Close()
}

// open makes the parts, on the program's own store if there is one; ended is called for users whose sessions have ended, and
// with it a view is made, which is a node's. With a nil start nothing is waited for.
func open(ctx context.Context, cfg *config.Config, own store.Store, now func() time.Time, logger *slog.Logger, registry *prometheus.Registry, ended func(context.Context, string) error, start *startup) (_ *Parts, err error) {
	p := &Parts{Store: own}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if own == nil {
		open := func(ctx context.Context) (err error) {
			p.DB, err = openDatabase(ctx, cfg, logger, registry, 0)
			return err
		}
		update := func(ctx context.Context) error { return migrate(ctx, p.DB, logger) }
		if err := start.await(ctx, "open the database", open); err != nil {
			return nil, err
		}
		if err := start.await(ctx, "migrate the database", update); err != nil {
			return nil, err
		}
		p.Store = sqlstore.New(p.DB)
	}
	p.Audit, err = audit.New(audit.Config{Store: p.Store, Now: now, Rand: rand.Reader, Logger: logger, Registerer: registry})
	if err != nil {
		return nil, err
	}
	p.Revocations = &revocation.Log{Store: p.Store, Now: now, Lives: lives(cfg)}
	var revoker directory.Revoker = appendOnly{p.Revocations}
	if ended != nil {
		p.view, err = revocation.NewView(revocation.Config{
			Store: p.Store, Poll: cfg.Revocation.Poll, MaxStaleness: cfg.Revocation.MaxStaleness,
			OnOutage: revocation.Outage{Allow: cfg.Revocation.OnOutage.Allow, For: cfg.Revocation.OnOutage.For},
			Shared:   cfg.Revocation.Check == "shared",
			Now:      now, Logger: logger, Registerer: registry,
		})
		if err != nil {
			return nil, err
		}
		p.Revocations.View = p.view
		revoker = p.Revocations
	}
	hasher, err := directory.NewHasher(directory.HasherConfig{
		Memory: int(cfg.Password.Memory), Iterations: cfg.Password.Iterations, Parallelism: cfg.Password.Parallelism,
		Workers: cfg.Password.Workers, Queue: cfg.Password.Queue, Rand: rand.Reader,
	})
	if err != nil {
		return nil, err
	}
	p.Directory = directory.New(directory.Config{
		Store: p.Store, Hasher: hasher, Audit: p.Audit, Revocations: revoker, OnEnded: ended,
		Now: now, Rand: rand.Reader, Logger: logger,
	})
	return p, nil
}

// appendOnly is the log for a process without a view: the line is written, and
// whoever tails the log finds it.
type appendOnly struct{ *revocation.Log }

func (appendOnly) Settle(context.Context, int64) error { return nil }

// lives are how long after its issue what a node issues may be accepted somewhere.
func lives(cfg *config.Config) revocation.Lives {
	return revocation.Lives{Token: cfg.Tokens.TokenDuration + Leeway, Session: cfg.Sessions.TTL}
}

// rules are what a token of this deployment is held to. A node that is alone has one
// clock, and needs no leeway.
func rules(cfg *config.Config) accesstoken.Rules {
	r := accesstoken.Rules{Issuer: cfg.Tokens.Issuer, Audience: cfg.Tokens.Audience}
	if cfg.Cluster.Enabled {
		r.Leeway = Leeway
	}
	return r
}

// makeDataDirectory makes the directory of the default database, so that a first
// start needs no preparation. Any other directory is the operator's to make: a
// wrong path should be an error, not an empty database somewhere else.
func makeDataDirectory(url string) error {
	if url != config.Default().Database.URL {
		return nil
	}
	file, _ := sqldb.SQLiteFile(url)
	dir := filepath.Dir(file)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("database.url: %w", err)
	}
	return nil
}

// StorageBox returns what seals values at rest: under the configured storage key,
// or, for SQLite without one, under a key file beside the database. What is sealed
// under one of the previous keys opens, too.
func StorageBox(cfg *config.Config) (*seal.Box, error) {
	primary, err := storageKey(cfg)
	if err != nil {
		return nil, err
	}
	previous := make([][]byte, len(cfg.Storage.PreviousKeys))
	for i, text := range cfg.Storage.PreviousKeys {
		if previous[i], err = seal.ParseKey(text); err != nil {
			return nil, fmt.Errorf("storage.previous_keys: %w", err)
		}
	}
	return seal.New(primary, previous...)
}

func storageKey(cfg *config.Config) ([]byte, error) {
	if cfg.Storage.Key != "" {
		key, err := seal.ParseKey(cfg.Storage.Key)
		if err != nil {
			return nil, fmt.Errorf("storage.key: %w", err)
		}
		return key, nil
	}
	path, ok := sqldb.SQLiteFile(cfg.Database.URL)
	if !ok {
		return nil, errors.New("storage.key: what is sealed in this database needs a storage key; set AUTH_STORAGE_KEY (openssl rand -base64 32)")
	}
	return seal.FromFile(path + ".key")
}
