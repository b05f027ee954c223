// Package haproxy tests that a real HAProxy, with this configuration, lets no request pass
// without a good token, and no X-Auth-* header of a client.
package haproxy

import (
	_ "embed"
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
	forwardauth.Run(t, func(t *testing.T, auth, app string) string {
		here := strings.NewReplacer("127.0.0.1:8000", "LISTEN", "127.0.0.1:8080", auth, "127.0.0.1:9000", app)
		return testenv.StartProxy(t, map[string]string{"haproxy.cfg": here.Replace(cfg), "watchword.lua": here.Replace(lua)},
			"haproxy", "-db", "-f", "DIR/haproxy.cfg").URL
	})
}
