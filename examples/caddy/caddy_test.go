// Package caddy tests that a real Caddy, with this configuration, lets no request pass
// without a good token, and no X-Auth-* header of a client.
package caddy

import (
	_ "embed"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/forwardauth"
)

//go:embed Caddyfile
var caddyfile string

func TestCaddy(t *testing.T) { forwardauth.Run(t, start) }

func TestCaddyRefusesWhatIsTooMuch(t *testing.T) { forwardauth.RunLimited(t, start) }

// The configuration of an older release copies neither header.
func TestCaddyOfAnOlderRelease(t *testing.T) {
	forwardauth.RunOlder(t, func(t *testing.T, auth, app string) string {
		return startWith(t, strings.ReplaceAll(caddyfile, "X-Auth-Time X-Auth-Methods ", ""), auth, app)
	})
}

func start(t *testing.T, auth, app string) string { return startWith(t, caddyfile, auth, app) }

func startWith(t *testing.T, caddyfile, auth, app string) string {
	here := strings.NewReplacer("127.0.0.1:8000", "LISTEN", "127.0.0.1:8080", auth, "127.0.0.1:9000", app)
	return testenv.StartProxy(t, map[string]string{"Caddyfile": here.Replace(caddyfile)},
		"env", "HOME=DIR", "XDG_CONFIG_HOME=DIR", "XDG_DATA_HOME=DIR", "caddy", "run", "--config", "DIR/Caddyfile", "--adapter", "caddyfile").URL
}
