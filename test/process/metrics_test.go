package process

import (
	"net/http"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

// With server.metrics_address the metrics are there and only there, and nothing else is; an
// address that is taken ends the start with the name of the setting.
func TestMetricsHaveAListenerOfTheirOwn(t *testing.T) {
	t.Parallel()
	address := testenv.Address(t)
	n := start(t, t.TempDir(), "WATCHWORD_SERVER_METRICS_ADDRESS="+address)
	apart := &node{Client: kit.Client{T: t, URL: "http://" + address, HTTP: n.client}}
	for _, c := range []struct {
		from   *node
		path   string
		status int
		has    string
	}{
		{apart, "/metrics", http.StatusOK, "watchword_signing_keys"},
		{apart, "/api/pkeys", http.StatusNotFound, "no_such_path"},
		{apart, "/readyz", http.StatusNotFound, "no_such_path"},
		{n, "/metrics", http.StatusNotFound, "no_such_path"},
		{n, "/api/pkeys", http.StatusOK, `"keys"`},
	} {
		status, body, err := c.from.call("GET", c.path, "", nil)
		if err != nil || status != c.status || !strings.Contains(string(body), c.has) {
			t.Errorf("%s%s: %d %.200s %v; want %d with %s", c.from.URL, c.path, status, body, err, c.status, c.has)
		}
	}

	second := launch(t, t.TempDir(), "WATCHWORD_SERVER_METRICS_ADDRESS="+address)
	<-second.ended
	if want := "server.metrics_address: " + address + " is in use"; second.Err() == nil || !strings.Contains(second.log.String(), want) {
		t.Errorf("a second one ended with %v and without %q:\n%s", second.Err(), want, second.log)
	}
}
