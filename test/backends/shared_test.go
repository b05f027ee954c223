package backends

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// With revocation.check shared, what one replica has revoked every other refuses
// with its next answer: without a poll and without a bell. Redis may lose its
// entries at any time.
func TestSharedCheck(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(testing.TB) (database, redis string){
		"mariadb": func(t testing.TB) (string, string) { return testenv.MariaDB(t), "" },
		"postgres and redis": func(t testing.TB) (string, string) {
			return testenv.Postgres(t), testenv.Redis(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			database, redis := open(t)
			shared := func(cfg *config.Config) {
				kit.StoredKeys(cfg)
				cfg.Revocation.Check, cfg.Redis.URL = "shared", redis
				// So that nothing but the question itself can be the reason.
				cfg.Revocation.Poll, cfg.Revocation.MaxStaleness = 30*time.Second, time.Minute
			}
			worlds := []*replica.World{replica.Join(t, database, shared), replica.Join(t, database, shared)}
			admin := worlds[0].Login("admin").AccessToken
			status := func(a kit.Answer) int { return a.Status }
			revoke := func(w *replica.World, what map[string]any) kit.Answer {
				return w.Do("POST", "/api/revocations", admin, what)
			}
			acts := map[string]func(w *replica.World, g httpapi.Grant) kit.Answer{
				"logout": func(w *replica.World, g httpapi.Grant) kit.Answer {
					return w.Do("POST", "/api/logout", g.AccessToken, nil)
				},
				"token": func(w *replica.World, g httpapi.Grant) kit.Answer {
					return revoke(w, map[string]any{"token": g.AccessToken})
				},
				"session": func(w *replica.World, g httpapi.Grant) kit.Answer {
					return revoke(w, map[string]any{"session_id": g.SessionID})
				},
				"user": func(w *replica.World, g httpapi.Grant) kit.Answer { return revoke(w, map[string]any{"user": "tester"}) },
				"issued before": func(w *replica.World, g httpapi.Grant) kit.Answer {
					return revoke(w, map[string]any{"user": "tester", "issued_before": time.Now().Add(time.Second).Unix()})
				},
			}
			// settled revokes something, again while a busy machine answers 503, which promises nothing. It
			// reports whether an answer has promised that every replica refuses it: a token that was revoked
			// with a 503 cannot ask again.
			settled := func(act func() kit.Answer) bool {
				busy := false
				a := kit.Patiently(func() kit.Answer { a := act(); busy = busy || a.Status == 503; return a }, status)
				if a.Status/100 != 2 && !(busy && a.Status == 401) {
					t.Fatalf("%d %s", a.Status, a.Body)
				}
				return a.Status/100 == 2
			}
			worlds[0].User("tester")
			for name, act := range acts {
				for round := range 4 {
					here, there := worlds[round%2], worlds[1-round%2]
					g := here.Login("tester")
					there.Accepts(g.AccessToken)
					if redis != "" && round == 2 {
						kit.Flush(t, redis)
					}
					promised := settled(func() kit.Answer { return act(here, g) })
					if redis != "" && round == 3 {
						kit.Flush(t, redis)
					}
					if !promised {
						there.Refuses(g.AccessToken, "token_revoked", time.Now(), kit.Patience)
						continue
					}
					a := kit.Patiently(func() kit.Answer { return there.Do("GET", "/api/verify", g.AccessToken, nil) }, status)
					if a.Code() != "token_revoked" {
						t.Errorf("%s, round %d: %d %s", name, round, a.Status, a.Body)
					}
				}
			}
			g := worlds[1].Login("tester")
			promised := settled(func() kit.Answer { return revoke(worlds[0], map[string]any{"kid": kit.KeyID(t, g.AccessToken)}) })
			a := kit.Patiently(func() kit.Answer { return worlds[1].Do("GET", "/api/verify", g.AccessToken, nil) }, status)
			// It may have left the key set already.
			if promised && a.Code() != "token_revoked" && a.Code() != "invalid_token" {
				t.Errorf("a token of a key that was revoked: %d %s", a.Status, a.Body)
			}
			by := func(who string) float64 {
				return worlds[1].Metric(`watchword_revocation_shared_checks_total{by="` + who + `"}`)
			}
			if asked, database := by("redis"), by("database"); redis == "" && database == 0 || (asked > 0) != (redis != "") {
				t.Errorf("Redis answered %v times, the database %v", asked, database)
			}
		})
	}
}

// The name under which others look a token up in Redis.
func TestRevokedTokenInRedis(t *testing.T) {
	redis := testenv.Redis(t)
	w := replica.New(t, func(cfg *config.Config) { cfg.Revocation.Check, cfg.Redis.URL = "shared", redis })
	g := w.Login("admin")
	jti := w.Verify(g.AccessToken)["jti"].(string)
	w.Revoke(g.AccessToken, map[string]any{"jti": jti})
	c := kit.Redis(t, redis)
	left, err := c.Do(t.Context(), c.B().Pttl().Key("revoked_token:"+jti).Build()).AsInt64()
	if least := w.Config.Tokens.TokenDuration.Milliseconds(); err != nil || left < least {
		t.Errorf("it is there for %d ms, %v; the token lives for %d", left, err, least)
	}
}

// While Redis is away the database is asked, and a revocation waits until no
// replica relies on a Redis that has missed it. While the database is away tokens are
// refused.
func TestSharedCheckWithoutRedisAndDatabase(t *testing.T) {
	t.Parallel()
	database, toDatabase := replica.Link(t, testenv.MariaDB(t))
	redis, toRedis := replica.Link(t, testenv.Redis(t))
	shared := func(cfg *config.Config) {
		kit.StoredKeys(cfg)
		cfg.Revocation.Check, cfg.Redis.URL = "shared", toRedis
		cfg.Revocation.Poll, cfg.Revocation.MaxStaleness = 200*time.Millisecond, 3*time.Second
	}
	worlds := []*replica.World{replica.Join(t, toDatabase, shared), replica.Join(t, toDatabase, shared)}
	kept := worlds[0].Login("admin").AccessToken
	gone := worlds[0].Login("admin").AccessToken
	redis.Set(testenv.Fault{Cut: true})
	began := time.Now()
	for _, w := range worlds {
		w.Accepts(kept)
	}
	worlds[0].Await("a logout", func() bool { // 503 says to try again
		a := worlds[0].Do("POST", "/api/logout", gone, nil)
		return a.Status == 204 || a.Code() == "token_revoked"
	})
	worlds[1].Want(worlds[1].Do("GET", "/api/verify", gone, nil), 401, "token_revoked")
	t.Logf("without Redis: %v for it all", time.Since(began).Round(time.Millisecond))

	redis.Set(testenv.Fault{})
	database.Set(testenv.Fault{Cut: true})
	for _, w := range worlds {
		kit.Eventually(t, func() error {
			if a := w.Do("GET", "/api/verify", kept, nil); a.Code() != "revocation_stale" || a.Header.Get("Retry-After") == "" {
				return fmt.Errorf("%d %s", a.Status, a.Body)
			}
			return nil
		})
		w.Want(w.Do("GET", "/api/verify", gone, nil), 401, "token_revoked")
	}
	database.Set(testenv.Fault{})
	for _, w := range worlds {
		kit.Eventually(t, func() error {
			if a := w.Do("GET", "/api/verify", kept, nil); a.Status != 200 {
				return fmt.Errorf("%d %s", a.Status, a.Body)
			}
			return nil
		})
	}
	if log := worlds[1].Log.String(); !strings.Contains(log, "the shared store cannot be asked") {
		t.Error("the log does not say that Redis was away")
	}
}
