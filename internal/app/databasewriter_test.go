package app

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
)

// Somebody puts the whole database back to what it was before a key was revoked and a session ended.
// As long as one replica lives, no other accepts what was revoked; and the database says again
// that the key is revoked, so that replicas which start when none lives see it, too. (Package cluster attacks single
// columns.)
func TestDatabaseIsPutBack(t *testing.T) {
	t.Parallel()
	db := openTestDatabase(t)
	kept, own := sqlstore.New(db), memstate.New(time.Now)
	begin := func(change func(*config.Config)) *world {
		cfg := clusterConfig(t, "")
		storedKeys(cfg)
		if change != nil {
			change(cfg)
		}
		cfg.Complete()
		w := &world{t: t, cfg: cfg, kept: kept, own: own, log: &logBuffer{}}
		w.start()
		return w
	}
	at, l := opened(t)
	alive := begin(func(cfg *config.Config) { cfg.Cluster.AdvertiseURL = at })
	server := &http.Server{Handler: alive.node.Handler()}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })

	token := alive.login("admin").AccessToken
	kid := kidOf(t, token)
	tables := []string{"signing_keys", "registered_keys", "key_states", "revocations"}
	exec := execOn(t, db)
	for _, table := range tables {
		exec("CREATE TABLE was_" + table + " AS SELECT * FROM " + table)
	}
	alive.want(alive.do("POST", "/api/revocations", token, map[string]string{"kid": kid}), 200, "")
	ended := alive.login("admin").AccessToken
	if kidOf(t, ended) == kid {
		t.Fatal("the revoked key signs")
	}
	alive.want(alive.do("POST", "/api/logout", ended, nil), 204, "")
	putBack := func() {
		for _, table := range tables {
			if table == "revocations" {
				exec("DELETE FROM revocations") // it was empty
				continue
			}
			exec("DELETE FROM " + table + " WHERE id = '" + kid + "'")
			exec("INSERT INTO " + table + " SELECT * FROM was_" + table + " WHERE id = '" + kid + "'")
		}
	}
	refused := func(w *world, with string) {
		t.Helper()
		w.want(w.do("GET", "/api/verify", with, nil), 401, "token_revoked")
		if slices.Contains(w.kids(), kid) {
			t.Error("the key set has the revoked key")
		}
	}
	putBack()
	later := begin(nil)
	refused(later, token)
	refused(later, ended)
	refused(alive, token)
	refused(alive, ended)
	alive.verify(later.login("admin").AccessToken)
	eventually(t, func() error {
		if !strings.Contains(alive.log.String()+later.log.String(), "an older state of it was put back") {
			return errors.New("nobody says so")
		}
		return nil
	})
	// The log becomes another one, so that the feed of those that live does not have the entry.
	exec("UPDATE revocation_head SET log_id = 'another', seq = 0")
	eventually(t, func() error {
		if alive.node.view.LogID() != "another" {
			return errors.New("the log is not read anew")
		}
		return nil
	})
	putBack()
	after := begin(nil)
	if slices.Contains(after.kids(), kid) || strings.Contains(after.log.String(), `"signing key published","kid":"`+kid) {
		t.Error("the key set has the revoked key, which the log has forgotten")
	}
	// It has what was revoked in the former log from the one that lives.
	refused(after, token)
	refused(after, ended)
	after.stop()
	// The log's entry is lost, but the row of the key is a tombstone again.
	later.stop()
	alive.stop()
	server.Close()
	last := begin(nil)
	defer last.stop()
	if slices.Contains(last.kids(), kid) {
		t.Error("the revoked key is back")
	}
	if a := last.do("GET", "/api/verify", token, nil); a.status != 401 {
		t.Errorf("its token: %d %s", a.status, a.body)
	}
}

func openTestDatabase(t *testing.T) *sqldb.DB {
	t.Helper()
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: testConfig(t).Database.URL, AcquireTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func execOn(t *testing.T, db *sqldb.DB) func(statement string) {
	return func(statement string) {
		t.Helper()
		if _, err := db.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// The rows of a revoked key are put back while no replica lives. The log still says that it is
// revoked, so a replica that starts alone does not sign with it for a moment.
func TestKeyIsPutBackButNotTheLog(t *testing.T) {
	t.Parallel()
	db := openTestDatabase(t)
	exec := execOn(t, db)
	cfg := testConfig(t)
	storedKeys(cfg)
	cfg.Complete()
	w := &world{t: t, cfg: cfg, kept: sqlstore.New(db), own: memstate.New(time.Now), quiet: true, log: &logBuffer{}}
	w.start()
	token := w.login("admin").AccessToken
	kid := kidOf(t, token)
	tables := []string{"signing_keys", "registered_keys", "key_states"}
	for _, table := range tables {
		exec("CREATE TABLE was_" + table + " AS SELECT * FROM " + table)
	}
	w.want(w.do("POST", "/api/revocations", token, map[string]string{"kid": kid}), 200, "")
	w.stop()
	for _, table := range tables {
		exec("DELETE FROM " + table)
		exec("INSERT INTO " + table + " SELECT * FROM was_" + table)
	}
	said := len(w.log.String())
	w.begin() // as it is before it is ready
	defer w.stop()
	if s, err := w.node.keys.Signer(); err == nil && s.KeyID() == kid {
		t.Error("the revoked key signs")
	}
	if _, published := w.node.keys.Key(kid); published {
		t.Error("the revoked key is published")
	}
	if log := w.log.String()[said:]; strings.Contains(log, `"signing key published","kid":"`+kid) || strings.Contains(log, `"signing key active","kid":"`+kid) {
		t.Errorf("it was used for a moment: %s", log)
	}
	w.isReady()
	w.want(w.do("GET", "/api/verify", token, nil), 401, "token_revoked")
	w.verify(w.login("admin").AccessToken)
}
