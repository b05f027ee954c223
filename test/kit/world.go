package kit

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
)

// Password is the password of every user.
const Password = "correct horse battery staple"

// ClusterSecret is the secret of every cluster.
const ClusterSecret = "a secret of thirty-two bytes, and more"

// Cheap makes passwords cost little, and lets a machine stand still for some seconds,
// which few tests are about.
func Cheap(cfg *config.Config) {
	cfg.Password.Memory, cfg.Password.Iterations = 64, 1
	cfg.Revocation.MaxStaleness, cfg.Database.AcquireTimeout = time.Minute, config.MaxAcquireTimeout
}

// Unlimited lets anybody attempt what they like as often as they like, which few tests are
// about: they log in more often than people do, all from one address.
func Unlimited(cfg *config.Config) {
	cfg.Limits.Login, cfg.Limits.MFA = config.Limit{}, config.Limit{}
	cfg.Limits.Lockout.After, cfg.Limits.Spray = 0, config.Spray{}
}

// UnlimitedEnv is Unlimited as environment variables.
var UnlimitedEnv = []string{
	"WATCHWORD_LIMITS_LOGIN_PER_ADDRESS=off", "WATCHWORD_LIMITS_LOGIN_PER_ACCOUNT=off",
	"WATCHWORD_LIMITS_LOCKOUT_AFTER=0", "WATCHWORD_LIMITS_SPRAY_AFTER=0", "WATCHWORD_LIMITS_SPRAY_TOTAL=off",
}

// Config is the configuration of a replica on a new SQLite database, with an administrator.
func Config(t testing.TB) *config.Config {
	cfg := config.Default()
	Cheap(cfg)
	Unlimited(cfg)
	cfg.Database.URL = sqldbtest.SQLite(t)
	cfg.Server.PublicURL = "https://auth.example.com"
	cfg.Admin.Username, cfg.Admin.Password = "admin", Password
	cfg.Revocation.Poll = 200 * time.Millisecond
	return cfg
}

// ClusterConfig is the configuration of a replica on a shared database, whose key sets are
// cached for a second. No verifier keeps them for longer, so a key that follows another one
// signs as soon as that.
func ClusterConfig(t testing.TB, database string) *config.Config {
	cfg := Config(t)
	cfg.Database.URL, cfg.Database.AcquireTimeout = database, config.Default().Database.AcquireTimeout
	cfg.Cluster.Enabled, cfg.Cluster.Secret = true, ClusterSecret
	cfg.Tokens.KeySetMaxAge, cfg.Tokens.KeyPublishAhead = time.Second, time.Second
	return cfg
}

// StoredKeys has replicas share a key in the database, so that one that joins need not wait
// until the others know its own.
func StoredKeys(cfg *config.Config) {
	cfg.Tokens.Keys, cfg.Storage.Key = config.KeysDatabase, strings.Repeat("0123456789abcdef", 4)
}

// A Replica runs in the process of the test.
type Replica interface {
	Handler() http.Handler
	WaitReady(ctx context.Context) error
	Drain()
	Close() error
}

// A World is a replica, where it is served, and calls to it.
type World struct {
	Client
	Open     func(ctx context.Context, logger *slog.Logger) (Replica, error)
	Replica  Replica          // the latest that Open returned
	Server   *httptest.Server // nil: calls go to the handler itself
	searched Log              // for secrets when the test ends
	Quiet    bool             // there is to be no Server, as in a bubble of package synctest
}

// Start starts the replica and waits until it is ready.
func (w *World) Start() {
	w.T.Helper()
	w.Begin()
	w.IsReady()
}

// Begin starts the replica.
func (w *World) Begin() {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.T.Context(), Patience)
	defer cancel()
	r, err := w.Open(ctx, slog.New(slog.NewJSONHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		w.T.Fatal(err)
	}
	if w.searched == nil || w.searched != w.Log { // once for all that run one after the other
		w.searched = w.Log
		w.T.Cleanup(func() { KeepsSecrets(w.T, w.Log.String()) })
	}
	w.Replica, w.Handler, w.URL = r, r.Handler(), "http://127.0.0.1"
	if !w.Quiet {
		w.Server = httptest.NewServer(w.Handler)
		w.Handler, w.URL = nil, w.Server.URL
	}
}

// IsReady waits until the replica is ready.
func (w *World) IsReady() {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(w.T.Context(), Patience)
	defer cancel()
	if err := w.Replica.WaitReady(ctx); err != nil {
		w.T.Fatal(err)
	}
}

// Stop ends the replica.
func (w *World) Stop() {
	w.Replica.Drain()
	if w.Server != nil {
		w.Server.Close()
	}
	if err := w.Replica.Close(); err != nil {
		w.T.Errorf("close: %v", err)
	}
}

// Restart ends the replica and starts another one on the same database.
func (w *World) Restart() {
	w.T.Helper()
	w.Stop()
	w.Start()
}

// AddUser makes a user in a group that gives the claims, each written "short=value", and
// returns the user's id.
func AddUser(t testing.TB, d *directory.Service, name string, claims ...string) (id string) {
	t.Helper()
	ctx, system := t.Context(), directory.System()
	group, err := d.CreateGroup(ctx, system, directory.NewGroup{Name: "of " + name})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range claims {
		short, value, _ := strings.Cut(c, "=")
		one, err := d.CreateClaim(ctx, system, directory.NewClaim{Name: name + " " + c, ShortName: short, Value: value})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.AddClaim(ctx, system, group.ID, one.ID); err != nil {
			t.Fatal(err)
		}
	}
	u, err := d.CreateUser(ctx, system, directory.NewUser{Username: name, Password: Password, Email: name + "@example.com",
		FirstName: "Travis", LastName: "Ester", Groups: []string{group.ID}})
	if err != nil {
		t.Fatal(err)
	}
	return u.ID
}
