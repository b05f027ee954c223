package app

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/state/redisstate"
	"github.com/watchword-auth/watchword/internal/state/sqlstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// signedIn logs in, renews, and returns what came of it.
func (w *world) signedIn() httpapi.Grant {
	w.t.Helper()
	g := w.login("admin")
	return decode[httpapi.Grant](w.t, w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 200, ""))
}

func (w *world) wantBackend(name, status string) {
	w.t.Helper()
	w.WantBackend(name, status)
}

func TestStateInRedis(t *testing.T) {
	url := testenv.Redis(t)
	w := newWorld(t, func(c *config.Config) { c.Redis.URL, c.State.Backend = url, "redis" })
	g := w.signedIn()
	w.wantBackend("redis", "ok")
	w.wantBackend("database", "ok")
	if list, err := sqlstate.New(w.node.parts.DB, time.Now).List(t.Context(), "session", w.verify(g.AccessToken)["sub"].(string), "", 10); err != nil || len(list) > 0 {
		t.Errorf("sessions in the database: %v, %v", list, err)
	}
	w.restart()
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 200, "")
}

func TestRedisOverTLS(t *testing.T) {
	ca := testenv.NewCA(t)
	url, file := testenv.RedisTLS(t, ca).URL, filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(ca.PEM), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(c *config.Config) { c.Redis.URL, c.Redis.CAFile, c.State.Backend = url, file, "redis" })
	w.signedIn()
	w.wantBackend("redis", "ok")
}

// A logout is for good although Redis forgets it, as in a failover, or when it
// starts from an older snapshot; also when all tokens from then have expired.
func TestRedisBringsNoSessionBack(t *testing.T) {
	url := testenv.Redis(t)
	w := newWorld(t, func(c *config.Config) { c.Redis.URL, c.State.Backend = url, "redis" })
	end := time.Now().Add(w.cfg.Sessions.TTL)
	redis, err := redisstate.Open(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer redis.Close()
	redis.Installation = w.node.state.redis.Installation
	for name, take := range map[string]func(httpapi.Grant) answer{
		"logout": func(g httpapi.Grant) answer { return w.do("POST", "/api/logout", g.AccessToken, nil) },
		"logout by the refresh token": func(g httpapi.Grant) answer {
			return w.do("POST", "/api/logout", "", httpapi.LogoutRequest{RefreshToken: g.RefreshToken})
		},
		"by id": func(g httpapi.Grant) answer { return w.do("DELETE", "/api/sessions/"+g.SessionID, g.AccessToken, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			g, before := w.login("admin"), w.head()
			key := state.Key{Kind: session.Kind, Owner: w.verify(g.AccessToken)["sub"].(string), ID: g.SessionID}
			record, err := redis.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			if a := take(g); a.status != 204 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if _, err := redis.Put(t.Context(), key, record.Value, time.Hour); err != nil {
				t.Fatal(err)
			}
			w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 401, "invalid_refresh_token")
			w.outlive(before, end)
		})
	}
}

// Without Redis a tiered replica starts and works; with it again, it says so.
func TestTieredStartsWithoutRedis(t *testing.T) {
	redis := testenv.StartRedis(t)
	redis.Stop()
	w := newWorld(t, func(c *config.Config) { c.Redis.URL = redis.URL })
	g := w.signedIn()
	w.want(w.do("GET", "/readyz", "", nil), 200, "")
	if a := w.do("GET", "/health", "", nil); a.status != 503 {
		t.Errorf("health is %d %s without Redis", a.status, a.body)
	}
	w.wantBackend("redis", "failed")
	w.wantBackend("database", "ok")
	w.await("the metrics say that the replica does without Redis", func() bool {
		return strings.Contains(string(w.do("GET", "/metrics", "", nil).body), "\nwatchword_state_tier_degraded 1\n")
	})

	redis.Start(t)
	w.await("the replica sees that Redis is back", func() bool { return w.do("GET", "/health", "", nil).status == 200 })
	w.wantBackend("redis", "ok")
	w.want(w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: g.RefreshToken}), 200, "")
}

// onWrite is called for each entry of a log.
type onWrite func(entry []byte)

func (f onWrite) Write(entry []byte) (int, error) {
	f(entry)
	return len(entry), nil
}

func TestRedisAloneMustAnswer(t *testing.T) {
	redis := testenv.StartRedis(t)
	redis.Stop()
	cfg := testConfig(t)
	cfg.Redis.URL, cfg.State.Backend = redis.URL, "redis"
	cfg.Complete()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	waits := onWrite(func(entry []byte) { // for startPatience, but for this test
		if bytes.Contains(entry, []byte("cannot start yet")) {
			cancel()
		}
	})
	_, err := New(ctx, Options{Config: cfg, Logger: slog.New(slog.NewTextHandler(waits, nil))})
	if err == nil || !strings.HasPrefix(err.Error(), "redis.url: Redis does not answer; start it, or set state.backend to tiered") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

// A session is recognised by its copy in Redis for as long as the view of the log
// clears it.
func TestSessionsAreRecognisedByCopies(t *testing.T) {
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: testenv.Postgres(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg, logger, log := testConfig(t), slog.New(slog.DiscardHandler), sqlstore.New(db)
	cfg.Redis.URL, cfg.Cluster.Enabled, cfg.Cluster.Secret = testenv.Redis(t), true, clusterSecret
	view, err := revocation.NewView(revocation.Config{Store: log, Poll: time.Second, MaxStaleness: time.Hour, Now: time.Now, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	refresh := func() {
		t.Helper()
		if err := view.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	registry := prometheus.NewRegistry()
	s, err := openState(t.Context(), backing{config: cfg, redis: func() string { return cfg.Redis.URL }, db: db, view: view, now: time.Now, logger: logger, registerer: registry})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	sessions := openSessions(cfg, s, view, time.Now, logger, registry)
	asked := 0
	recognise := func(one session.Session, wantAsked int) {
		t.Helper()
		asked = 0
		_, err := sessions.Recognise(t.Context(), one.UserID, one.ID, func(context.Context, session.Session) error { asked++; return nil })
		if err != nil || asked != wantAsked {
			t.Errorf("%v; the record was read: %v", err, asked > 0)
		}
	}
	start := func() session.Session {
		t.Helper()
		one, _, _, err := sessions.Start(t.Context(), uuid.NewString(), 1, "192.0.2.1", "test", nil)
		if err == nil {
			err = s.Store.Close() // it waits for the copy
		}
		if err != nil {
			t.Fatal(err)
		}
		return one
	}
	byUser, bySession := start(), start()
	recognise(byUser, 0)
	recognise(bySession, 0)
	for _, entry := range []store.Revocation{
		{Kind: string(revoked.User), Subject: byUser.UserID, Epoch: byUser.Epoch + 1},
		{Kind: string(revoked.Session), Subject: bySession.ID},
	} {
		entry.ExpiresAt = time.Now().Add(time.Hour)
		if _, err := log.AppendRevocation(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	recognise(byUser, 1) // by the epoch alone: the user may tell
	if _, err := sessions.Recognise(t.Context(), bySession.UserID, bySession.ID, nil); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a session that was revoked: %v", err)
	}
}

// What the program brought is used, and stays open.
func TestOwnState(t *testing.T) {
	own := &closing{Store: memstate.New(time.Now)}
	cfg := testConfig(t)
	cfg.Complete()
	node, err := New(t.Context(), Options{Config: cfg, Logger: slog.New(slog.DiscardHandler), State: own})
	if err != nil {
		t.Fatal(err)
	}
	key := state.Key{Kind: "test", Owner: "o", ID: "i"}
	if _, err := node.state.Put(t.Context(), key, nil, time.Minute); err != nil || node.state.servers["state"] == nil {
		t.Error(err)
	}
	if _, err := own.Get(t.Context(), key); err != nil {
		t.Errorf("the replica does not use it: %v", err)
	}
	if err := node.Close(); err != nil || own.closed {
		t.Errorf("close: %v; own closed: %v", err, own.closed)
	}

	cfg.State.Backend = "sql"
	if _, err := New(t.Context(), Options{Config: cfg, Logger: slog.New(slog.DiscardHandler), State: own}); err == nil ||
		!strings.Contains(err.Error(), "leave it at auto") {
		t.Errorf("two states: %v", err)
	}
}

// With a store of the program's own no database is opened.
func TestOwnStore(t *testing.T) {
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "own.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.Database.URL = "sqlite:" + filepath.Join(t.TempDir(), "not-used.db")
	cfg.Complete()
	start := func() (*Node, error) {
		return New(t.Context(), Options{Config: cfg, Logger: slog.New(slog.DiscardHandler), Store: sqlstore.New(db)})
	}
	if _, err := start(); err == nil || !strings.HasPrefix(err.Error(), "storage.key: ") {
		t.Errorf("stored keys without a storage key: %v", err)
	}
	cfg.Tokens.Keys = "memory"
	if _, err := start(); err == nil || !strings.HasPrefix(err.Error(), "state.backend: sql needs a database") {
		t.Errorf("no state: %v", err)
	}
	cfg.State.Backend = "memory"
	node, err := start()
	if err != nil {
		t.Fatal(err)
	}
	if users, err := sqlstore.New(db).Users(t.Context(), store.Page{Limit: 9}); err != nil || len(users) != 1 || users[0].Username != "admin" {
		t.Errorf("the store has %+v, %v", users, err)
	}
	if err := node.Close(); err != nil {
		t.Error(err)
	}
	if err := db.Ping(t.Context()); err != nil {
		t.Errorf("the program's database was closed: %v", err)
	}
	if _, err := os.Stat(sqliteFile(cfg)); !os.IsNotExist(err) {
		t.Errorf("another database was made: %v", err)
	}
}

type closing struct {
	state.Store
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

// Of ten replicas one sweeps, until nothing is left, and no other until its lease
// has ended.
func TestSweepOneReplicaAtATime(t *testing.T) {
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: "sqlite:" + filepath.Join(t.TempDir(), "w.db"), AcquireTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var clock atomic.Int64
	clock.Store(time.Now().UnixMilli())
	now := func() time.Time { return time.UnixMilli(clock.Load()) }
	const expired = sweepBatch + 1
	_, err = db.Exec(t.Context(), "INSERT INTO state_rates (kind, owner, id, tat, expires_at) "+
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) SELECT 'rate', 'o', i, 1, 1 FROM n", expired)
	if err != nil {
		t.Fatal(err)
	}

	var sweepers, swept atomic.Int64
	replicas := func() {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				s := &sweeping{Store: sqlstate.New(db, now)}
				if err := sweep(t.Context(), s); err != nil {
					t.Error(err)
				}
				swept.Add(s.n)
				if s.calls > 0 {
					sweepers.Add(1)
				}
			})
		}
		wg.Wait()
	}
	replicas()
	if sweepers.Load() != 1 || swept.Load() != expired {
		t.Errorf("%d replicas swept %d of %d", sweepers.Load(), swept.Load(), expired)
	}
	replicas()
	if sweepers.Load() != 1 {
		t.Error("another one swept during the lease")
	}
	clock.Add(sweepFor.Milliseconds())
	replicas()
	if sweepers.Load() != 2 {
		t.Errorf("%d swept after the lease", sweepers.Load()-1)
	}
}

// A backlog that is longer than the time for it is no error, but that nothing could
// be deleted in that time is.
func TestSweepOfALongBacklog(t *testing.T) {
	for _, batches := range []int{0, 3} {
		synctest.Test(t, func(t *testing.T) {
			err := sweep(t.Context(), &backlog{Store: memstate.New(time.Now), batches: batches})
			if (err == nil) != (batches > 0) {
				t.Errorf("after %d batches: %v", batches, err)
			}
		})
	}
}

// A backlog lets some batches go, and then takes longer than any caller waits.
type backlog struct {
	state.Store
	batches int
}

func (b *backlog) Sweep(ctx context.Context, limit int) (int, error) {
	if b.batches > 0 {
		b.batches--
		return limit, nil
	}
	<-ctx.Done()
	return 0, state.ErrUnavailable.Because(ctx.Err())
}

// A sweeping counts what Sweep does.
type sweeping struct {
	state.Store
	calls, n int64
}

func (s *sweeping) Sweep(ctx context.Context, limit int) (int, error) {
	n, err := s.Store.Sweep(ctx, limit)
	s.calls, s.n = s.calls+1, s.n+int64(n)
	return n, err
}

// Probes and metrics look at no session: they list nothing, and cost Redis as much
// with a thousand sessions as with ten.
func TestProbesCostNoSessions(t *testing.T) {
	redis := testenv.StartRedis(t)
	w := newWorld(t, func(c *config.Config) {
		c.Redis.URL, c.State.Backend = redis.URL, "redis"
		c.Pages.Enabled = false // for which a replica notes every ten seconds what it has done
	})
	owner := w.verify(w.login("admin").AccessToken)["sub"].(string)
	own, err := redisstate.Open(redis.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	own.Installation = w.node.state.redis.Installation
	c, sessions := redisClient(t, redis.URL), 0
	cost := func(many int) (commands int) {
		t.Helper()
		for ; sessions < many; sessions++ {
			key := state.Key{Kind: session.Kind, Owner: owner, ID: uuid.NewString()}
			if _, err := own.Put(t.Context(), key, []byte("{}"), time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Do(t.Context(), c.B().ConfigResetstat().Build()).Error(); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			for _, path := range []string{"/health", "/metrics", "/readyz", "/livez"} {
				w.want(w.do("GET", path, "", nil), 200, "")
			}
		}
		stats, err := c.Do(t.Context(), c.B().Info().Section("commandstats").Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(stats) {
			name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
			if !ok {
				continue
			}
			for _, lists := range []string{"keys", "scan", "range", "smembers", "hgetall", "mget"} {
				if strings.Contains(name, lists) {
					t.Errorf("with %d sessions Redis was asked for %s", many, name)
				}
			}
			calls, _, _ := strings.Cut(rest, ",")
			n, err := strconv.Atoi(calls)
			if err != nil {
				t.Fatal(err)
			}
			commands += n
		}
		t.Logf("%d commands with %d sessions", commands, many)
		return commands
	}
	few, many := cost(10), cost(1000)
	// What goes on beside it takes as long as this does, and a thousand sessions more
	// would be asked for a thousand times or more.
	if few == 0 || many > 2*few+1000 {
		t.Errorf("%d commands with 10 sessions, %d with 1,000", few, many)
	}
}
