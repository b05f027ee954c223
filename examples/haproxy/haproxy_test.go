// Package haproxy tests that a real HAProxy, with this configuration, lets no request pass
// without a good token, and no X-Auth-* header of a client.
package haproxy

import (
	_ "embed"
	"regexp"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/forwardauth"
)

var (
	//go:embed haproxy.cfg
	cfg string
	//go:embed watchword.lua
	lua string
)

func TestHAProxy(t *testing.T) {
	forwardauth.Run(t, func(t *testing.T, auth, app string) string { return start(t, cfg, auth, app) })
}

// Without the room that the configuration makes, some requests are refused, and none arrives
// with half of an identity.
func TestHAProxyWithoutRoom(t *testing.T) {
	small := regexp.MustCompile(`(?m)^\s+tune\.(bufsize|maxrewrite) .*\n`).ReplaceAllString(cfg, "")
	if small == cfg {
		t.Fatal("the configuration makes no room")
	}
	forwardauth.RunTight(t, func(t *testing.T, auth, app string) string { return start(t, small, auth, app) })
}

func TestHAProxyRefusesWhatIsTooMuch(t *testing.T) {
	forwardauth.RunLimited(t, func(t *testing.T, auth, app string) string { return start(t, cfg, auth, app) })
}

// start starts HAProxy in a directory that is not that of its files.
func start(t *testing.T, cfg, auth, app string) string {
	here := strings.NewReplacer("127.0.0.1:8000", "LISTEN", "127.0.0.1:8080", auth, "127.0.0.1:9000", app)
	return testenv.StartProxy(t, map[string]string{"haproxy.cfg": here.Replace(cfg), "watchword.lua": here.Replace(lua)},
		"env", "-C", "/", "/usr/sbin/haproxy", "-db", "-f", "DIR/haproxy.cfg").URL
}
