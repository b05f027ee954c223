package process

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// A node that starts before its servers waits for them: it lives, and is not ready.
func TestStartsBeforeItsServers(t *testing.T) {
	for name, c := range map[string]struct {
		server *testenv.Server
		env    []string
	}{
		"postgres": {server: testenv.StartPostgres(t)},
		"mariadb":  {server: testenv.StartMariaDB(t)},
		"redis":    {server: testenv.StartRedis(t), env: []string{"WATCHWORD_STATE_BACKEND=redis"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.server.Stop()
			variable := "DATABASE_URL="
			if name == "redis" {
				variable = "REDIS_URL="
			}
			n := launch(t, t.TempDir(), append(c.env, variable+c.server.URL, "WATCHWORD_TOKENS_KEYS=memory")...)
			waitUntil(t, "it tries again", func() bool {
				return strings.Contains(n.log.String(), "this server cannot start yet; trying again")
			})
			for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/api/pkeys": 503} {
				status, answer, err := n.call("GET", path, "", nil)
				if err != nil || status != want || (want == 503) != strings.Contains(string(answer), "this server is starting") {
					t.Errorf("%s: %d %s %v", path, status, answer, err)
				}
			}
			c.server.Start(t)
			n.ready()
			u, err := url.Parse(c.server.URL)
			if err != nil {
				t.Fatal(err)
			}
			if secret, _ := u.User.Password(); secret != "" && strings.Contains(n.log.String(), secret) {
				t.Errorf("a password is in the log:\n%s", n.log)
			}
		})
	}
}

// What waiting does not mend ends a node at once.
func TestStartsInVain(t *testing.T) {
	for name, server := range map[string]string{"postgres": testenv.Postgres(t), "mariadb": testenv.MariaDB(t)} {
		u, err := url.Parse(server)
		if err != nil {
			t.Fatal(err)
		}
		wrong, nowhere := *u, *u
		wrong.User = url.UserPassword(u.User.Username(), "wrong")
		nowhere.Path = "/nowhere"
		for what, u := range map[string]url.URL{"password": wrong, "database": nowhere} {
			t.Run(name+" "+what, func(t *testing.T) {
				t.Parallel()
				n := launch(t, t.TempDir(), "DATABASE_URL="+u.String(), "WATCHWORD_TOKENS_KEYS=memory")
				select {
				case <-n.ended:
				case <-time.After(time.Minute):
					t.Fatalf("it goes on\n%s", n.log)
				}
				if log := n.log.String(); strings.Contains(log, "trying again") || !strings.Contains(log, "database.url: ") || n.waitErr == nil {
					t.Errorf("it ended with %v:\n%s", n.waitErr, log)
				}
			})
		}
	}
}
