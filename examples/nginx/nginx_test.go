// Package nginx tests that a real nginx, with this configuration, lets no request pass
// without a good token, and no X-Auth-* header of a client.
package nginx

import (
	_ "embed"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/forwardauth"
)

//go:embed watchword.conf
var conf string

// around stands for /etc/nginx/nginx.conf, which includes the configuration.
const around = `
load_module /usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so;
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
	include DIR/watchword.conf;
}
`

func TestNginx(t *testing.T) { forwardauth.Run(t, start) }

func TestNginxRefusesWhatIsTooMuch(t *testing.T) { forwardauth.RunLimited(t, start) }

// The configuration of an older release copies neither header.
func TestNginxOfAnOlderRelease(t *testing.T) {
	var lines []string
	for line := range strings.Lines(conf) {
		if !strings.Contains(line, "$auth_time") && !strings.Contains(line, "$auth_methods") {
			lines = append(lines, line)
		}
	}
	forwardauth.RunOlder(t, func(t *testing.T, auth, app string) string {
		return startWith(t, strings.Join(lines, ""), auth, app)
	})
}

func start(t *testing.T, auth, app string) string { return startWith(t, conf, auth, app) }

func startWith(t *testing.T, conf, auth, app string) string {
	here := strings.NewReplacer("127.0.0.1:8000", "LISTEN", "127.0.0.1:8080", auth, "127.0.0.1:9000", app)
	return testenv.StartProxy(t, map[string]string{"nginx.conf": around, "watchword.conf": here.Replace(conf)},
		"nginx", "-e", "stderr", "-p", "DIR", "-c", "DIR/nginx.conf").URL
}
