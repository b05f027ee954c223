package process

import (
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// A replica that starts before its servers waits for them: it lives, and is not ready.
func TestStartsBeforeItsServers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		server  func(t testing.TB) (url string)
		setting string
		env     []string
	}{
		"postgres": {testenv.Postgres, "DATABASE_URL", nil},
		"mariadb":  {testenv.MariaDB, "DATABASE_URL", nil},
		"redis":    {testenv.Redis, "REDIS_URL", []string{"WATCHWORD_STATE_BACKEND=redis"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u, err := url.Parse(c.server(t))
			if err != nil {
				t.Fatal(err)
			}
			server := u.Host
			u.Host = testenv.Address(t) // which refuses until a server listens there
			n := launch(t, t.TempDir(), append(c.env, c.setting+"="+u.String(), "WATCHWORD_TOKENS_KEYS=memory")...)
			waitUntil(t, "it tries again", func() bool {
				select {
				case <-n.ended:
					t.Fatalf("it ended: %v\n%s", n.Err(), n.log)
				default:
				}
				return strings.Contains(n.log.String(), "this server cannot start yet; trying again")
			})
			for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/api/pkeys": 503} {
				status, answer, err := n.call("GET", path, "", nil)
				if err != nil || status != want || (want == 503) != strings.Contains(string(answer), "this server is starting") {
					t.Errorf("%s: %d %s %v", path, status, answer, err)
				}
			}
			relay(t, u.Host, server)
			n.ready()
			if !strings.Contains(n.log.String(), `"step":"`) {
				t.Errorf("the log does not say at which step it waited:\n%s", n.log)
			}
			if secret, _ := u.User.Password(); secret != "" && strings.Contains(n.log.String(), secret) {
				t.Errorf("a password is in the log:\n%s", n.log)
			}
		})
	}
}

// relay passes connections to one address on to another, until the test ends.
func relay(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
				go func() {
					_, _ = io.Copy(way[0], way[1])
					way[0].Close()
				}()
			}
		}
	}()
}

// A replica ends at once if waiting cannot mend what is wrong.
func TestStartsInVain(t *testing.T) {
	t.Parallel()
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
				if log := n.log.String(); strings.Contains(log, "trying again") || !strings.Contains(log, "database.url: ") || n.Err() == nil {
					t.Errorf("it ended with %v:\n%s", n.Err(), log)
				}
			})
		}
	}
}
