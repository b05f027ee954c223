package loadgen_test

import (
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/loadgen"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// Three replicas over one database keep what a run judges, and nothing of it is left. The
// limit is a small one, so that it is met.
func TestThreeReplicas(t *testing.T) {
	const perAccount = 12
	const bound = 3 * time.Second // a replica that the machine keeps waiting answers 503
	database := testenv.Postgres(t)
	c := loadgen.Config{
		Mix: loadgen.Mix{loadgen.Login: 10, loadgen.Renew: 20, loadgen.Verify: 60, loadgen.Revoke: 10}, Rate: 50, Callers: 16, Sessions: 20,
		Duration: 3 * time.Second, Timeout: time.Minute, Bound: bound, ProbeLimits: true, Seed: 1, Client: loadgen.NewClient(16, nil),
	}
	defer c.Client.CloseIdleConnections()
	var one *replica.World
	for range 3 {
		one = replica.Join(t, database, func(cfg *config.Config) {
			kit.StoredKeys(cfg)
			cfg.Revocation.MaxStaleness = bound
			cfg.Limits.Login.PerAccount = config.Rate{Count: perAccount, Per: time.Hour}
		})
		c.URLs = append(c.URLs, one.URL)
	}
	made, err := loadgen.MakeUsers(t.Context(), c.Client, c.URLs[0], loadgen.User{Username: "admin", Password: kit.Password}, 10)
	if err != nil {
		t.Fatal(err)
	}
	c.Users = made.Users
	rep, err := loadgen.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := rep.Verdict(); err != nil {
		t.Errorf("%v\n%+v", err, rep)
	}
	if err := made.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if a := one.Do("GET", "/api/users?prefix="+loadgen.UserPrefix, one.Login("admin").AccessToken, nil); a.Status != 200 || strings.Contains(string(a.Body), loadgen.UserPrefix) {
		t.Errorf("users are left: %d %s", a.Status, a.Body)
	}
	for _, s := range rep.Revocations.Seen {
		if s.Count == 0 {
			t.Errorf("%s was not seen to refuse anything", s.URL)
		}
	}
	for _, l := range rep.Limits {
		if l.Name == "login-account" {
			if l.N != perAccount || l.MostUsed > 1 || l.MostUsed < 0.7 || l.Refused == 0 {
				t.Errorf("%+v", l)
			}
			return
		}
	}
	t.Errorf("no limit was counted: %+v", rep.Limits)
}

// Whoever cannot make users makes none.
func TestMakeUsersRefused(t *testing.T) {
	one := replica.New(t, nil)
	one.User("alice")
	for _, admin := range []loadgen.User{{Username: "alice", Password: kit.Password}, {Username: "admin", Password: "wrong"}} {
		_, err := loadgen.MakeUsers(t.Context(), loadgen.NewClient(1, nil), one.URL, admin, 3)
		if err == nil || strings.Contains(err.Error(), kit.Password) {
			t.Error(err)
		}
	}
}
