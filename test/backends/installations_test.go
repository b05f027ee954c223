package backends

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// A staging copy of an installation uses the same Redis and has the same users, issuer and
// secrets. What happens in one of them does not touch the other.
func TestTwoInstallationsOnOneRedis(t *testing.T) {
	t.Parallel()
	for _, backend := range []config.StateBackend{config.StateRedis, config.StateTiered} {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			redis := testenv.Redis(t)
			p := newPresent(t, func(c *config.Config) {
				c.Redis.URL, c.State.Backend, c.Revocation.Check = redis, backend, config.CheckShared
				if backend == config.StateTiered {
					c.Cluster.Secret = kit.ClusterSecret
				}
			})
			original, file := p.w, sqliteFile(p.w.Config)
			original.Stop()
			cfg := *original.Config
			cfg.Database.URL = "sqlite:" + file + ".staging"
			copyFile(t, file, file+".staging")
			original.Start()
			if err := operator.Separate(t.Context(), &cfg, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			staging := replica.New(t, func(c *config.Config) { *c = cfg })

			staging.Want(staging.Do("GET", "/api/verify", p.kept.AccessToken, nil), 401, "invalid_token")
			if _, answer := staging.Renew(p.kept.RefreshToken); answer.Status != 401 {
				t.Errorf("the copy renews a session of the original: %d %s", answer.Status, answer.Body)
			}
			kept := p.kept
			for range 2 {
				for _, both := range [][2]*replica.World{{original, staging}, {staging, original}} {
					here, there := both[0], both[1]
					mine, ended, theirs := here.Login("ester"), here.Login("ester"), there.Login("ester")
					there.Want(there.Do("GET", "/api/verify", mine.AccessToken, nil), 401, "invalid_token")
					here.Want(here.Do("POST", "/api/logout", ended.AccessToken, nil), 204, "")
					here.Revoke(here.Login("admin").AccessToken, map[string]any{"user": p.user})
					here.Want(here.Do("GET", "/api/verify", mine.AccessToken, nil), 401, "token_revoked")
					there.Verify(theirs.AccessToken)
					if _, answer := there.Renew(theirs.RefreshToken); answer.Status != 200 {
						t.Errorf("a session has ended with those of the other installation: %d %s", answer.Status, answer.Body)
					}
				}
			}
			if _, answer := original.Renew(kept.RefreshToken); answer.Status != 401 {
				t.Errorf("a session goes on: %d %s", answer.Status, answer.Body) // the second round has ended it
			}

			c := kit.Redis(t, redis)
			names, err := c.Do(t.Context(), c.B().Keys().Pattern("*").Build()).AsStrSlice()
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, cfg := range []*config.Config{original.Config, &cfg} {
				var id string
				if err := other(t, cfg.Database.URL).QueryRow(t.Context(), "SELECT value FROM settings WHERE name = 'installation'").Scan(&id); err != nil {
					t.Fatal(err)
				}
				if slices.Contains(ids, id) || id == "" {
					t.Errorf("the ids %q, and %q", ids, id)
				}
				ids = append(ids, id)
			}
			for _, name := range names {
				if strings.HasPrefix(name, "write_probe:") {
					continue // nobody reads what it is
				}
				if parts := strings.Split(name, ":"); !slices.ContainsFunc(ids, func(id string) bool { return slices.Contains(parts, id) }) {
					t.Errorf("whose is %s?", name)
				}
			}
		})
	}
}

// The installation of an earlier version has its sessions in Redis under names without an
// id. It goes on with them.
func TestInstallationOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	redis := testenv.Redis(t)
	w := replica.New(t, func(c *config.Config) { c.Redis.URL, c.State.Backend = redis, config.StateRedis })
	w.Stop()
	if _, err := other(t, w.Config.Database.URL).Exec(t.Context(), "DELETE FROM settings WHERE name = 'installation'"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.Start()
		grant := w.Login("admin")
		c := kit.Redis(t, redis)
		user := w.Verify(grant.AccessToken)["sub"].(string)
		if n, err := c.Do(t.Context(), c.B().Exists().Key("session:{"+user+"}:"+grant.SessionID).Build()).AsInt64(); n != 1 || err != nil {
			t.Errorf("the session is somewhere else, %v", err)
		}
		w.Restart()
		if _, answer := w.Renew(grant.RefreshToken); answer.Status != 200 {
			t.Errorf("a session has ended with its replica: %d %s", answer.Status, answer.Body)
		}
		w.Stop()
	}
	w.Start()
}
