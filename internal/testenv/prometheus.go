package testenv

import (
	"fmt"
	"strings"
	"testing"
)

// Prometheus starts a Prometheus for this test that scrapes targets, given as host:port, four times a
// second, from five seconds after its start on, under the job "watchword", and evaluates rules as often.
func Prometheus(t testing.TB, rules string, targets ...string) *Server {
	t.Helper()
	return StartProxy(t, map[string]string{"rules.yaml": rules, "prometheus.yaml": fmt.Sprintf(`
global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}
rule_files: [rules.yaml]
scrape_configs:
  - job_name: watchword
    static_configs: [{targets: [%s]}]
`, strings.Join(targets, ", "))}, "prometheus", "--config.file=DIR/prometheus.yaml", "--storage.tsdb.path=DIR/data",
		"--web.listen-address=LISTEN", "--log.level=warn")
}
