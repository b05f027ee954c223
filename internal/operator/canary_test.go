package operator

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
)

// Without the cluster's secret no token can be sent to other replicas than the one that
// issues it, so that nobody is logged in.
func TestCanaryNeedsTheClustersSecret(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("it was asked for %s", r.URL) }))
	defer server.Close()
	cfg := config.Default()
	cfg.Complete()
	_, err := Canary(t.Context(), cfg, []string{server.URL, server.URL}, "root", "password")
	if err == nil || !strings.Contains(err.Error(), "name one URL only") {
		t.Errorf("%v", err)
	}
}
