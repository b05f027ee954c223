package app

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// With revocation.check shared, what one replica has revoked every other refuses
// with its next answer: no poll comes into it, nor a bell, and Redis may lose what
// it was told at any time.
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
				storedKeys(cfg)
				cfg.Revocation.Check, cfg.Redis.URL = "shared", redis
				// So that nothing but the question itself can be the reason.
				cfg.Revocation.Poll, cfg.Revocation.MaxStaleness = 30*time.Second, time.Minute
			}
			worlds := []*world{join(t, database, shared), join(t, database, shared)}
			admin := worlds[0].login("admin").AccessToken
			acts := map[string]func(w *world, g httpapi.Grant){
				"logout": func(w *world, g httpapi.Grant) {
					w.want(w.do("POST", "/api/logout", g.AccessToken, nil), 204, "")
				},
				"token":   func(w *world, g httpapi.Grant) { w.revoke(admin, map[string]any{"token": g.AccessToken}) },
				"session": func(w *world, g httpapi.Grant) { w.revoke(admin, map[string]any{"session_id": g.SessionID}) },
				"user":    func(w *world, g httpapi.Grant) { w.revoke(admin, map[string]any{"user": "tester"}) },
				"issued before": func(w *world, g httpapi.Grant) {
					w.revoke(admin, map[string]any{"user": "tester", "issued_before": time.Now().Add(time.Second).Unix()})
				},
			}
			worlds[0].user("tester")
			for act, takeBack := range acts {
				for round := range 4 {
					here, there := worlds[round%2], worlds[1-round%2]
					g := here.login("tester")
					there.verify(g.AccessToken)
					if redis != "" && round == 2 {
						flush(t, redis)
					}
					takeBack(here, g)
					if redis != "" && round == 3 {
						flush(t, redis)
					}
					if a := there.do("GET", "/api/verify", g.AccessToken, nil); a.code() != "token_revoked" {
						t.Errorf("%s, round %d: %d %s", act, round, a.status, a.body)
					}
				}
			}
			g := worlds[1].login("tester")
			worlds[0].revoke(admin, map[string]any{"kid": kidOf(t, g.AccessToken)})
			// It may have left the key set already.
			if a := worlds[1].do("GET", "/api/verify", g.AccessToken, nil); a.code() != "token_revoked" && a.code() != "invalid_token" {
				t.Errorf("a token of a key that was revoked: %d %s", a.status, a.body)
			}
			by := func(who string) float64 {
				return worlds[1].metric(`watchword_revocation_shared_checks_total{by="` + who + `"}`)
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
	w := newWorld(t, func(cfg *config.Config) { cfg.Revocation.Check, cfg.Redis.URL = "shared", redis })
	g := w.login("admin")
	jti := w.verify(g.AccessToken)["jti"].(string)
	w.revoke(g.AccessToken, map[string]any{"jti": jti})
	c := redisClient(t, redis)
	left, err := c.Do(t.Context(), c.B().Pttl().Key("revoked_token:"+jti).Build()).AsInt64()
	if least := w.cfg.Tokens.TokenDuration.Milliseconds(); err != nil || left < least {
		t.Errorf("it is there for %d ms, %v; the token lives for %d", left, err, least)
	}
}

// While Redis is away the database is asked, and a revocation waits until no
// replica relies on what Redis was not told. While the database is away tokens are
// refused.
func TestSharedCheckWithoutRedisAndDatabase(t *testing.T) {
	t.Parallel()
	database, toDatabase := linkTo(t, testenv.MariaDB(t))
	redis, toRedis := linkTo(t, testenv.Redis(t))
	shared := func(cfg *config.Config) {
		storedKeys(cfg)
		cfg.Revocation.Check, cfg.Redis.URL = "shared", toRedis
		cfg.Revocation.Poll, cfg.Revocation.MaxStaleness = 200*time.Millisecond, 3*time.Second
	}
	worlds := []*world{join(t, toDatabase, shared), join(t, toDatabase, shared)}
	kept := worlds[0].login("admin").AccessToken
	gone := worlds[0].login("admin").AccessToken
	redis.Set(testenv.Fault{Cut: true})
	began := time.Now()
	for _, w := range worlds {
		w.accepts(kept)
	}
	worlds[0].await("a logout", func() bool { // 503 says to try again
		a := worlds[0].do("POST", "/api/logout", gone, nil)
		return a.status == 204 || a.code() == "token_revoked"
	})
	worlds[1].want(worlds[1].do("GET", "/api/verify", gone, nil), 401, "token_revoked")
	t.Logf("without Redis: %v for it all", time.Since(began).Round(time.Millisecond))

	redis.Set(testenv.Fault{})
	database.Set(testenv.Fault{Cut: true})
	for _, w := range worlds {
		eventually(t, func() error {
			if a := w.do("GET", "/api/verify", kept, nil); a.code() != "revocation_stale" || a.header.Get("Retry-After") == "" {
				return fmt.Errorf("%d %s", a.status, a.body)
			}
			return nil
		})
		w.want(w.do("GET", "/api/verify", gone, nil), 401, "token_revoked")
	}
	database.Set(testenv.Fault{})
	for _, w := range worlds {
		eventually(t, func() error {
			if a := w.do("GET", "/api/verify", kept, nil); a.status != 200 {
				return fmt.Errorf("%d %s", a.status, a.body)
			}
			return nil
		})
	}
	if log := worlds[1].log.String(); !strings.Contains(log, "the shared store cannot be asked") {
		t.Error("the log does not say that Redis was away")
	}
}

func redisClient(t *testing.T, url string) rueidis.Client {
	t.Helper()
	option, err := rueidis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	option.DisableCache = true
	c, err := rueidis.NewClient(option)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func flush(t *testing.T, url string) {
	t.Helper()
	c := redisClient(t, url)
	if err := c.Do(t.Context(), c.B().Flushall().Build()).Error(); err != nil {
		t.Fatal(err)
	}
}
