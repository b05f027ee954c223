package app

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// While all connections work at statements that take long, for longer than a view may
// be stale, tokens are verified, what another replica revokes is seen, and the replica
// is not taken for silent.
func TestVerifyingWhileThePoolIsExhausted(t *testing.T) {
	const connections = 3
	t.Parallel()
	url, long := testenv.MariaDB(t), "SELECT 1 + SLEEP(2)" // without a bell, that a connection of its own brings
	patient := func(c *config.Config) {
		c.Database.MaxConnections, c.Database.AcquireTimeout = connections, config.MaxAcquireTimeout
		c.Revocation.MaxStaleness = 5 * time.Second
		storedKeys(c)
	}
	w, elsewhere := join(t, url, patient), join(t, url, patient)
	kept, ended := w.login("admin"), w.login("admin")

	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	defer busy.Wait()
	defer cancel()
	for range 8 * connections { // the last one waits for longer than a view may be stale
		busy.Go(func() {
			for ctx.Err() == nil {
				var one int
				if err := w.node.parts.DB.QueryRow(ctx, long).Scan(&one); err != nil && ctx.Err() == nil {
					t.Errorf("a statement that takes long: %v", err)
				}
			}
		})
	}
	exhausted := func() bool { return w.metric("watchword_database_connections_waiting") >= 6*connections }
	w.await("the pool is exhausted", exhausted)
	registry := elsewhere.node.parts.Store.(store.Registry)
	before, err := registry.Registered(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < w.cfg.Revocation.MaxStaleness+time.Second; <-tick.C {
		w.verify(kept.AccessToken)
	}
	elsewhere.want(elsewhere.do("POST", "/api/logout", ended.AccessToken, nil), 204, "")
	w.refuses(ended.AccessToken, "token_revoked", time.Now(), w.cfg.Revocation.MaxStaleness)
	w.verify(kept.AccessToken)
	after, err := registry.Registered(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range after.Replicas {
		if !r.BeatAt.After(before.Now) {
			t.Errorf("%s has not been heard of since the pool was exhausted", r.Instance)
		}
	}
	if !exhausted() {
		t.Error("the pool is not exhausted any more")
	}
}

// On a full disk nothing is written, and no request is answered as if it were. Reading goes on.
// With space again all goes on without a restart.
func TestSQLiteDiskFull(t *testing.T) {
	synctest.Test(t, sqliteDiskFull)
}

func sqliteDiskFull(t *testing.T) {
	w := newQuietWorld(t, func(c *config.Config) { c.Revocation.MaxStaleness = 3 * time.Second })
	db, grant := w.node.parts.DB, w.login("admin")
	limit := func(pages int) {
		t.Helper()
		if _, err := db.Exec(t.Context(), "PRAGMA max_page_count = "+strconv.Itoa(pages)); err != nil {
			t.Fatal(err)
		}
	}
	var pages int
	if err := db.QueryRow(t.Context(), "PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit(pages)
	w.await("a login needs more space", func() bool {
		a := w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password})
		if a.status != 200 && (a.status != 503 || a.header.Get("Retry-After") == "") {
			t.Fatalf("a login is answered %d %s", a.status, a.body)
		}
		return a.status == 503
	})
	if !strings.Contains(w.log.String(), "is full; free some space") {
		t.Error("the log does not say what to do")
	}
	for full := time.Now(); time.Since(full) < 3*w.cfg.Revocation.MaxStaleness; time.Sleep(time.Second) {
		w.verify(grant.AccessToken) // reading goes on
	}
	limit(pages + 1000)
	w.login("admin")
	w.want(w.do("POST", "/api/logout", grant.AccessToken, nil), 204, "")
}

// The database is closed under the replica: it says so, keeps answering what it can,
// and refuses what it cannot know.
func TestDatabaseAway(t *testing.T) {
	synctest.Test(t, databaseAway)
}

func databaseAway(t *testing.T) {
	w := newQuietWorld(t, func(c *config.Config) { c.Revocation.MaxStaleness = 3 * time.Second })
	grant := w.login("admin")
	w.accepts(grant.AccessToken)
	if err := w.node.parts.DB.Close(); err != nil {
		t.Fatal(err)
	}
	if a := w.do("GET", "/health", "", nil); a.status != 503 || !strings.Contains(string(a.body), `"status":"failed"`) {
		t.Errorf("health is %d %s", a.status, a.body)
	}
	for _, a := range []answer{
		w.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password}),
		w.do("POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}),
		w.do("POST", "/api/logout", grant.AccessToken, nil),
		w.do("GET", "/api/users", grant.AccessToken, nil),
	} {
		if a.status != 503 || a.header.Get("Retry-After") == "" || a.code() == "" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	time.Sleep(w.cfg.Revocation.MaxStaleness + time.Millisecond)
	w.want(w.do("GET", "/api/verify", grant.AccessToken, nil), 503, "revocation_stale")
	if a := w.do("GET", "/readyz", "", nil); a.status != 503 {
		t.Errorf("readyz is %d", a.status)
	}
	w.want(w.do("GET", "/livez", "", nil), 200, "") // a restart would not help
	w.want(w.do("GET", "/api/pkeys", "", nil), 200, "")
}
