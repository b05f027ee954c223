package app

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/revocation"
	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/sqldb/sqldbtest"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/store/sqlstore"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/accesstoken"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// A brokenStore fails a transaction that revokes something, before or after its commit.
type brokenStore struct {
	*sqlstore.Store
	before, after atomic.Bool
}

var errBroken = errors.New("the connection is broken")

func (b *brokenStore) Update(ctx context.Context, f func(store.Records) error) error {
	revokes := false
	err := b.Store.Update(ctx, func(r store.Records) error {
		if err := f(&watchedRecords{r, &revokes}); err != nil {
			return err
		}
		if revokes && b.before.Load() {
			return errBroken
		}
		return nil
	})
	if err == nil && revokes && b.after.Load() {
		return errBroken
	}
	return err
}

type watchedRecords struct {
	store.Records
	revokes *bool
}

func (w *watchedRecords) AppendRevocation(ctx context.Context, r store.Revocation) (int64, error) {
	*w.revokes = true
	return w.Records.AppendRevocation(ctx, r)
}

// A key that is revoked is refused by every replica and resource server within the bound, and
// another one signs at once, also if the answer of the database is lost. The audit trail says
// who, and why. Nobody revokes a key without the right.
func TestRevokedKeyIsRefusedEverywhere(t *testing.T) {
	db, err := sqldb.Open(t.Context(), sqldb.Config{URL: sqldbtest.SQLite(t), AcquireTimeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	kept, shared := &brokenStore{Store: sqlstore.New(db)}, memstate.New(time.Now)
	replica := func() *world {
		cfg := clusterConfig(t, "")
		cfg.Tokens.Keys = config.KeysMemory
		cfg.Complete()
		w := &world{t: t, cfg: cfg, own: shared, kept: kept, log: &logBuffer{}}
		w.begin()
		t.Cleanup(w.stop)
		return w
	}
	one, two := replica(), replica()
	one.isReady()
	two.isReady()
	bound := one.cfg.Revocation.MaxStaleness
	resource, err := verify.New(verify.Config{
		Issuer: one.cfg.Tokens.Issuer, Audience: []string{one.cfg.Tokens.Issuer}, MaxStaleness: bound,
		KeySetURL: two.URL + "/api/pkeys", RevocationsURL: two.URL + "/api/revocations",
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resource.Close()
	one.user("limited", "admin=users:write", "admin=revoke", "admin=keys:read")
	accepted := func(token string) error {
		for _, w := range []*world{one, two} {
			if a := w.do("GET", "/api/verify", token, nil); a.status != 200 {
				return fmt.Errorf("a replica answers %d %s", a.status, a.body)
			}
		}
		_, err := resource.Verify(t.Context(), token)
		return err
	}
	refused := func(kid, token string, since time.Time) {
		t.Helper()
		eventually(t, func() error {
			for _, w := range []*world{one, two} {
				if a := w.do("GET", "/api/verify", token, nil); a.status != 401 {
					return fmt.Errorf("a replica answers %d", a.status)
				}
			}
			if _, err := resource.Verify(t.Context(), token); err == nil || errors.Is(err, verify.ErrStale) {
				return fmt.Errorf("the resource server says %v", err)
			}
			return nil
		})
		if took := time.Since(since); took > bound {
			t.Errorf("the key %s was accepted for %v", kid, took)
		}
	}
	revoked := func(n float64) {
		t.Helper()
		eventually(t, func() error {
			for _, w := range []*world{one, two} {
				if m := w.metric("watchword_revoked_signing_keys"); m != n {
					return fmt.Errorf("%v revoked keys, want %v", m, n)
				}
			}
			return nil
		})
	}
	revoke := func(token, kid, reason string) answer {
		return one.do("POST", "/api/revocations", token, map[string]any{"kid": kid, "reason": reason})
	}
	trail := func(kid string, want ...string) {
		t.Helper()
		admin := one.login("admin").AccessToken
		var got []string
		for _, e := range one.Trail(admin, url.Values{"target": {kid}}) {
			if e.Action == "revoke" {
				got = append(got, e.Outcome+" "+e.Detail)
			}
		}
		if strings.Join(got, "; ") != strings.Join(want, "; ") {
			t.Errorf("the trail of %s: %q, want %q", kid, got, want)
		}
	}

	token := two.login("admin").AccessToken
	kid := kidOf(t, token)
	eventually(t, func() error { return accepted(token) })
	revoked(0)
	one.want(revoke(one.login("limited").AccessToken, kid, "I may not"), 403, "permission_missing")
	one.want(revoke(one.login("admin").AccessToken, "auth-9-none", "a typing error"), 404, "unknown_key")
	one.want(one.do("POST", "/api/revocations", one.login("admin").AccessToken, map[string]any{"user": "limited", "reason": "x"}), 422, "invalid_request")
	trail(kid, "denied permission_missing")

	kept.before.Store(true) // failed, and not persisted
	one.want(revoke(one.login("admin").AccessToken, kid, "a disk was stolen"), 503, "storage_unavailable")
	kept.before.Store(false)
	trail(kid, "failed storage_unavailable: a disk was stolen", "denied permission_missing")
	if err := accepted(token); err != nil {
		t.Errorf("nothing was revoked: %v", err)
	}
	revoked(0)

	kept.after.Store(true) // failed, and persisted
	began := time.Now()
	one.want(revoke(one.login("admin").AccessToken, kid, "a disk was\nstolen\u202e"), 503, "storage_unavailable")
	kept.after.Store(false)
	refused(kid, token, began)
	var next string
	eventually(t, func() error {
		if next = two.login("admin").AccessToken; kidOf(t, next) == kid {
			return errors.New("the replica signs with the revoked key")
		}
		return nil
	})
	eventually(t, func() error { return accepted(next) })
	whole := []string{
		"failed storage_unavailable: a disk was�stolen�", "ok a disk was�stolen�",
		"failed storage_unavailable: a disk was stolen", "denied permission_missing",
	}
	trail(kid, whole...)
	revoked(1)
	one.want(revoke(one.login("admin").AccessToken, kid, "again"), 200, "") // and writes nothing
	trail(kid, whole...)

	// The replica that is asked signs with another key when it has answered.
	token = one.login("admin").AccessToken
	kid = kidOf(t, token)
	began = time.Now()
	one.want(revoke(token, kid, strings.Repeat("why ", 200)), 200, "")
	if next = one.login("admin").AccessToken; kidOf(t, next) == kid {
		t.Error("the replica that revoked its key signs with it")
	}
	refused(kid, token, began)
	eventually(t, func() error { return accepted(next) })
	trail(kid, "ok "+strings.Repeat("why ", 125))
	revoked(2)
	if log := one.log.String(); strings.Count(log, `"action":"revoke","outcome":"ok","actor":"`) != 1 || !strings.Contains(log, `"target":"`+kid+`"`) || !strings.Contains(log, `"detail":"why why `) {
		t.Errorf("the log says %s", log)
	}
	for _, w := range []*world{one, two} {
		if keys := decode[httpapi.JWKS](t, w.do("GET", "/api/pkeys", "", nil)).Keys; len(keys) == 0 {
			t.Error("no key is left")
		}
		for _, k := range w.KeyIDs() {
			if k == kid {
				t.Errorf("the key %s is published", kid)
			}
		}
	}
}

// A replica signs with another key as soon as it refuses tokens of a revoked one, and not when it
// next reads the rows of keys: a user who logs in meanwhile would get a token that is refused.
func TestRevokedKeyIsReplacedWhenItIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		w := b.join(func(cfg *config.Config) { cfg.Revocation.Poll = 300 * time.Millisecond })
		for range 5 { // the polls of the log and of the rows come in another order each time
			time.Sleep(370 * time.Millisecond)
			token := w.login("admin").AccessToken
			kid := kidOf(t, token)
			if err := w.node.parts.RevokeKey(t.Context(), w.cfg, kid, ""); err != nil { // which rings no bell
				t.Fatal(err)
			}
			for w.do("GET", "/api/verify", token, nil).status == 200 {
				time.Sleep(time.Millisecond)
			}
			synctest.Wait()
			if signer, err := w.node.keys.Signer(); err != nil || signer.KeyID() == kid {
				t.Errorf("tokens of %s are refused, and it signs: %v", kid, err)
			}
		}
	})
}

// A signing secret that is revoked stays so for years, under each of its algorithms: an operator
// may leave it in the configuration. What is neither a key nor a configured secret is unknown.
func TestRevokedSecretStaysRevoked(t *testing.T) {
	const present, former = "the signing secret of this deployment has more than 64 characters, so all HMACs", "and the former one has 32 or more"
	inBubble(t, func(t *testing.T, b *bubble) {
		withSecrets := func(cfg *config.Config) {
			cfg.Tokens.Secret, cfg.Tokens.PreviousSecrets = present, []string{former + "@2000-01-01"}
		}
		kids := map[string][]string{}
		for _, text := range []string{present, former} {
			keys, err := accesstoken.SecretKeys(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range keys {
				kids[text] = append(kids[text], k.ID)
			}
		}
		if len(kids[present]) != 3 || len(kids[former]) != 1 {
			t.Fatalf("the secrets have the kids %v", kids)
		}
		w := b.join(withSecrets)
		admin := w.login("admin").AccessToken
		forged := store.Key{ID: kids[present][1], Instance: "evil", Algorithm: "HS384", PublicJWK: []byte("{}"), CreatedAt: time.Now(), RemoveAt: time.Now().Add(time.Hour)}
		if err := b.store.CreateKey(t.Context(), forged); err != nil {
			t.Fatal(err)
		}
		w.want(w.do("POST", "/api/revocations", admin, map[string]any{"kid": kids[present][1], "reason": "it was in a repository"}), 200, "")
		if err := w.node.parts.RevokeKey(t.Context(), w.cfg, kids[former][0], "so was this"); err != nil {
			t.Fatal(err)
		}
		w.want(w.do("POST", "/api/revocations", admin, map[string]any{"kid": kids[present][1][1:]}), 404, "unknown_key")
		if err := w.node.parts.RevokeKey(t.Context(), testConfig(t), kids[former][0], ""); !errors.Is(err, keyring.ErrUnknownKey) {
			t.Errorf("a secret that is not configured: %v", err)
		}
		w.revoke(admin, map[string]any{"user": "admin"}) // the newest entry of the log is kept anyhow
		all := append(kids[present], kids[former]...)
		check := func(when string, w *world) {
			t.Helper()
			feed := string(w.do("GET", "/api/revocations", "", nil).body)
			for _, kid := range all {
				if err := w.node.view.Check(t.Context(), &accesstoken.Token{KeyID: kid, IssuedAt: time.Now()}); !errors.Is(err, revocation.ErrRevoked) {
					t.Errorf("%s, %s: %v", when, kid, err)
				}
				id, err := revoked.Digest(revoked.Key, kid).MarshalText()
				if err != nil || !strings.Contains(feed, string(id)) {
					t.Errorf("%s, the feed lacks %s: %s", when, kid, feed)
				}
				if !w.node.revoked.Has(kid) {
					t.Errorf("%s, it is not known that the key %s is revoked", when, kid)
				}
			}
		}
		eventually(t, func() error {
			if n := w.metric("watchword_revoked_signing_keys"); n != 4 {
				return fmt.Errorf("%v revoked keys", n)
			}
			return nil
		})
		check("at once", w)
		w.stop()
		for year := range 9 {
			time.Sleep(365 * 24 * time.Hour) // with nothing that runs
			again := b.world(withSecrets)
			again.start()
			time.Sleep(3 * time.Minute) // in which what has expired is deleted
			check(fmt.Sprint("after years: ", year+1), again)
			again.stop()
		}
		if entries, _, err := b.store.RevocationsAfter(t.Context(), 0, 10); err != nil || len(entries) != 4 && len(entries) != 5 {
			t.Errorf("the log has %+v, %v", entries, err)
		}
	})
}
