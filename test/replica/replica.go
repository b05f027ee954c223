// Package replica runs whole replicas in the test's own process, for tests that look at
// them from outside of package app.
package replica

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/app"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// Options is what a replica may have besides its configuration.
type Options struct {
	State state.Store      // nil: what the configuration names
	Store store.Store      // the same for what must last
	Now   func() time.Time // nil: the clock of the machine
	Quiet bool             // there is no network, as in a bubble of package synctest
	Early bool             // New need not wait until the replica is ready
}

// A World is a replica with an administrator, and calls to it.
type World struct {
	kit.World
	Config *config.Config
	Log    *testenv.Log

	parts *operator.Parts // nil: not opened yet
}

// New starts a replica on a new SQLite database; it ends with the test. A function may
// change its configuration.
func New(t testing.TB, change func(*config.Config)) *World {
	t.Helper()
	return NewWith(t, Options{}, change)
}

// NewWith is New with options.
func NewWith(t testing.TB, o Options, change func(*config.Config)) *World {
	t.Helper()
	cfg := kit.Config(t)
	if o.Quiet {
		cfg.Revocation.Poll = time.Second // else most of the work were polling
	}
	if change != nil {
		change(cfg)
	}
	cfg.Complete()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	kit.SecretsOf(cfg)
	log := &testenv.Log{}
	w := &World{World: kit.World{Client: kit.Client{T: t, Log: log}, Quiet: o.Quiet}, Config: cfg, Log: log}
	w.Open = func(ctx context.Context, logger *slog.Logger) (kit.Replica, error) {
		return app.New(ctx, app.Options{Config: cfg, Version: "test", State: o.State, Store: o.Store, Now: o.Now, Logger: logger})
	}
	w.Begin()
	t.Cleanup(w.Stop)
	if !o.Early {
		w.IsReady()
	}
	return w
}

// Join starts a replica of a cluster on a database.
func Join(t testing.TB, database string, change func(*config.Config)) *World {
	t.Helper()
	return JoinWith(t, database, Options{}, change)
}

// JoinWith is Join with options.
func JoinWith(t testing.TB, database string, o Options, change func(*config.Config)) *World {
	t.Helper()
	return NewWith(t, o, func(cfg *config.Config) {
		*cfg = *kit.ClusterConfig(t, database)
		if change != nil {
			change(cfg)
		}
	})
}

// Parts are the use cases on connections of their own to the database of the replica, as an
// operator has them.
func (w *World) Parts() *operator.Parts {
	w.T.Helper()
	if w.parts == nil {
		cfg := *w.Config
		cfg.Database.AcquireTimeout = config.MaxAcquireTimeout // what a test prepares may wait for a busy machine
		parts, err := operator.Open(w.T.Context(), &cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			w.T.Fatal(err)
		}
		w.T.Cleanup(func() { parts.Close() })
		w.parts = parts
	}
	return w.parts
}

// User makes a user in a group that gives the claims, each written "short=value", and
// returns the user's id.
func (w *World) User(name string, claims ...string) (id string) {
	w.T.Helper()
	return kit.AddUser(w.T, w.Parts().Directory, name, claims...)
}

// Await waits for an event.
func (w *World) Await(what string, happened func() bool) {
	w.T.Helper()
	kit.Await(w.T, what, happened, w.Log.Tail)
}

// Head is the latest number of the revocation log.
func (w *World) Head() int64 {
	w.T.Helper()
	return kit.Head(w.T, w.Parts().Store)
}

// Link puts a link before the server that a URL names, and returns the URL by way of it.
func Link(t testing.TB, server string) (*testenv.Link, string) {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	l := testenv.NewLink(t, u.Host)
	u.Host = l.Addr
	return l, u.String()
}

// Listen returns a URL at which a replica that is started later can be served. Until then,
// a client that asks there waits.
func Listen(t testing.TB) (url string, l net.Listener) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String(), l
}

// Serve serves a handler at a listener until the test ends or the function is called.
func Serve(t testing.TB, l net.Listener, h http.Handler) (stop func()) {
	server := &http.Server{Handler: h}
	go server.Serve(l)
	stop = func() { server.Close() }
	t.Cleanup(stop)
	return stop
}
