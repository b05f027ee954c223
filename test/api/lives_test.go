package api

import (
	"context"
	"crypto/rand"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/operator"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// shortLived and longLived are two configurations that replicas of one deployment
// may have while it is changed from one to the other.
func shortLived(c *config.Config) {
	c.Tokens.TokenDuration, c.Tokens.KeyDuration, c.Sessions.TTL = time.Minute, 8*time.Hour, time.Hour
}

func longLived(c *config.Config) {
	c.Tokens.TokenDuration, c.Tokens.KeyDuration, c.Sessions.TTL = 2*time.Hour, 8*time.Hour, 48*time.Hour
}

// on puts a replica on a database of its own kind.
func on(url string) func(*config.Config) {
	return func(c *config.Config) {
		c.Database.URL, c.Storage.Key = url, "c2VjdXJpdHkgdGVzdHMgbmVlZCBubyBzZWNyZXQga2U="
	}
}

func both(f, g func(*config.Config)) func(*config.Config) {
	return func(c *config.Config) { f(c); g(c) }
}

// A replica that issues for a minute revokes what another one has issued for
// two hours, by every way there is.
func TestARevocationOutlivesWhatAnyReplicaIssued(t *testing.T) {
	where := on("sqlite:" + filepath.Join(t.TempDir(), "watchword.db"))
	short := replica.New(t, both(where, shortLived))
	long := replica.New(t, both(where, longLived)) // comes later
	revokeEveryWay(t, short, long)
}

func revokeEveryWay(t *testing.T, short, long *replica.World) {
	admin := long.Login("admin").AccessToken
	do := func(method, path string, body any, status int) {
		t.Helper()
		short.Want(short.Do(method, path, admin, body), status, "")
	}
	for name, revoke := range map[string]func(id string, g httpapi.Grant){
		"logout": func(_ string, g httpapi.Grant) {
			short.Want(short.Do("POST", "/api/logout", g.AccessToken, nil), 204, "")
		},
		"one token": func(_ string, g httpapi.Grant) {
			do("POST", "/api/revocations", map[string]any{"token": g.AccessToken}, 200)
		},
		"everything until now": func(id string, _ httpapi.Grant) {
			do("POST", "/api/revocations", map[string]any{"user": id}, 200)
		},
		"everything until a moment": func(id string, _ httpapi.Grant) {
			do("POST", "/api/revocations", map[string]any{"user": id, "issued_before": time.Now().Add(-time.Minute).Unix()}, 200)
		},
		"all sessions": func(id string, _ httpapi.Grant) { do("DELETE", "/api/users/"+id+"/sessions", nil, 204) },
		"a right":      func(id string, _ httpapi.Grant) { do("DELETE", "/api/users/"+id+"/groups/Crew", nil, 204) },
		"the password": func(id string, _ httpapi.Grant) {
			do("PATCH", "/api/users/"+id, map[string]any{"password": "another long password"}, 200)
		},
		"the account": func(id string, _ httpapi.Grant) { do("DELETE", "/api/users/"+id, nil, 204) },
		"at the command line": func(id string, _ httpapi.Grant) {
			p, err := operator.Open(t.Context(), short.Config, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Directory.DeleteUser(context.Background(), directory.System(), id); err != nil {
				t.Error(err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		},
		"a session by its id": func(_ string, g httpapi.Grant) {
			before := short.Head()
			do("POST", "/api/revocations", map[string]any{"session_id": g.SessionID}, 200)
			kit.Outlives(t, short.Parts().Store, before, time.Now().Add(48*time.Hour)) // as long as it could renew
		},
	} {
		t.Run(name, func(t *testing.T) {
			id, username := crew(long, t)
			g := long.Login(username)
			expires := short.Expiry(g.AccessToken)
			if life := time.Until(expires); life < time.Hour {
				t.Fatalf("the token lives for %v", life)
			}
			before := short.Head()
			revoke(id, g)
			kit.Outlives(t, short.Parts().Store, before, expires.Add(operator.Leeway))
		})
	}
}

// crew makes a user in the group Crew, which gives a claim.
func crew(w *replica.World, t *testing.T) (id, name string) {
	t.Helper()
	ctx, d, system := t.Context(), w.Parts().Directory, directory.System()
	if _, err := d.Group(ctx, system, "Crew"); err != nil {
		if _, err := d.CreateClaim(ctx, system, directory.NewClaim{Name: "Aboard", ShortName: "ship", Value: "aboard"}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.CreateGroup(ctx, system, directory.NewGroup{Name: "Crew", Claims: []string{"Aboard"}}); err != nil {
			t.Fatal(err)
		}
	}
	name = "sailor-" + rand.Text()
	u, err := d.CreateUser(ctx, system, directory.NewUser{Username: name, Password: kit.Password, Groups: []string{"Crew"}})
	if err != nil {
		t.Fatal(err)
	}
	return u.ID, name
}

// The same for one replica that is configured anew and restarted, twice.
func TestARevocationOutlivesAFormerConfiguration(t *testing.T) {
	w := replica.New(t, longLived)
	grant := w.Login("admin")
	shortLived(w.Config)
	w.Restart()
	w.Restart()
	expires, before := w.Expiry(grant.AccessToken), w.Head()
	w.Want(w.Do("POST", "/api/logout", grant.AccessToken, nil), 204, "")
	kit.Outlives(t, w.Parts().Store, before, expires.Add(operator.Leeway))
	if kept := w.Expiry(w.Login("admin").AccessToken); time.Until(kept) > time.Minute {
		t.Errorf("a new token lives until %v, and should for a minute", kept)
	}
}
