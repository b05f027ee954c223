package subscribers

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/node"
	"github.com/watchword-auth/watchword/verify"
)

const nginx = `
daemon off;
pid DIR/pid;
error_log stderr;
worker_processes 1;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	server {
		listen LISTEN;
		location / {
			proxy_pass http://NODE;
			EXTRA
		}
	}
}
`

// Between a replica and its resource servers stands a real nginx: as Debian ships it,
// it lets the event stream through, because the replica asks for that. Where it is
// configured to ignore this, it holds the stream back, and pages take its place.
func TestBehindNginx(t *testing.T) {
	const revocations = 5
	for name, c := range map[string]struct {
		extra        string
		pages        bool
		maxStaleness time.Duration
	}{
		// Long: it is not given up because the machine is busy.
		"as it is": {"", false, time.Minute},
		// Short: a stream that is held back is soon given up.
		"buffering": {"proxy_ignore_headers X-Accel-Buffering;", true, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := node.Start(t)
			fill := strings.NewReplacer("NODE", strings.TrimPrefix(n.URL, "http://"), "EXTRA", c.extra)
			proxy := testenv.StartProxy(t, map[string]string{"nginx.conf": fill.Replace(nginx)},
				"nginx", "-e", "stderr", "-p", "DIR", "-c", "DIR/nginx.conf")
			log := &testenv.Log{}
			v, err := verify.New(verify.Config{
				Issuer: n.URL, KeySetURL: proxy.URL + "/api/pkeys", RevocationsURL: proxy.URL + "/api/revocations",
				MaxStaleness: c.maxStaleness, Logger: slog.New(slog.NewTextHandler(log, nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			admin := n.Login("admin").AccessToken
			awaitAccepted(t, v, admin)
			for deadline := time.Now().Add(time.Minute); c.pages && !strings.Contains(log.String(), "pages are polled instead"); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the stream is not given up: %s", log)
				}
			}
			var longest time.Duration
			for range revocations {
				token := n.Login("tester").AccessToken
				awaitAccepted(t, v, token)
				n.Do("POST", "/api/revocations", admin, fmt.Sprintf(`{"token":%q}`, token), 200)
				longest = max(longest, refusals(t, []*verify.Verifier{v}, token, time.Now(), min(c.maxStaleness, verify.DefaultMaxStaleness))[0])
			}
			t.Logf("%d revocations: the longest took %v", revocations, longest)
			if got := strings.Contains(log.String(), "pages are polled instead"); got != c.pages {
				t.Errorf("reads by pages: %v; %s", got, log)
			}
		})
	}
}
