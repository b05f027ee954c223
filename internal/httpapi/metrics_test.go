package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Clients that ask for the metrics and never read them must fit into memory, and a client
// that reads them does not wait.
func TestMetricsHoldLittle(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector())
	many := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "many"}, []string{"n"})
	registry.MustRegister(many)
	for i := range 600 {
		many.WithLabelValues(fmt.Sprintf("%x", revoked.Digest(revoked.Token, strconv.Itoa(i)))).Inc()
	}
	mux := http.NewServeMux()
	(&Metrics{Registry: registry}).Mount(httpkit.NewAPI(mux, "test", nil, httpkit.Proxies{}, nil))
	server := testenv.StartHTTP2(t, mux)
	const streams = 100
	before := testenv.Heap()
	testenv.DialZeroWindow(t, server).Ask(t, streams, "/metrics")
	if held := testenv.Heap() - before; held > streams*(100<<10) {
		t.Errorf("%d answers that nobody reads hold %d KiB", streams, held>>10)
	}
	res, err := server.Client().Get(server.URL + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !strings.Contains(string(body), fmt.Sprintf("%x", revoked.Digest(revoked.Token, "599"))) {
		t.Errorf("another reader gets %s, %v, %d bytes", res.Status, err, len(body))
	}
}
