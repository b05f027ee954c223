package httpapi

import (
	"bytes"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/watchword-auth/watchword/internal/httpkit"
)

// maxGathers is how many requests gather the metrics at once; the others wait.
const maxGathers = 4

// Metrics serves the metrics to Prometheus. An answer is complete before it is sent. The
// endpoint is open to any client, so a slow reader may hold the few kilobytes of its answer
// and nothing else, least of all a place among those that are gathered at once.
type Metrics struct{ Registry *prometheus.Registry }

// Mount adds the route.
func (m *Metrics) Mount(api *httpkit.API) {
	api.Handle(httpkit.Route{
		Method: http.MethodGet, Path: "/metrics", ID: "metrics", Tag: "probes", Summary: "Prometheus metrics",
		Status: http.StatusOK, Type: "text/plain",
	}, m.handler())
}

// Apart returns a handler that serves the metrics and nothing else, for a listener of
// their own.
func (m *Metrics) Apart() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", m.handler())
	mux.HandleFunc("/", unrouted(mux))
	return secured(cleanPaths(mux))
}

// handler answers with the metrics.
func (m *Metrics) handler() http.HandlerFunc {
	gather := promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{DisableCompression: true})
	places := make(chan struct{}, maxGathers)
	return func(w http.ResponseWriter, r *http.Request) {
		whole := wholeAnswer{header: w.Header(), status: http.StatusOK}
		places <- struct{}{}
		gather.ServeHTTP(&whole, r)
		<-places
		body := [][]byte{whole.body.Bytes()}
		w.Header().Set("Vary", "Accept-Encoding")
		if httpkit.AcceptsGzip(r.Header) {
			w.Header().Set("Content-Encoding", "gzip")
			body = httpkit.Gzipped([]httpkit.Part{{Plain: body[0], Deflated: httpkit.Deflated(body[0])}})
		}
		httpkit.WriteSlowly(w, whole.status, body...)
	}
}

// A wholeAnswer keeps what a handler writes.
type wholeAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *wholeAnswer) Header() http.Header         { return a.header }
func (a *wholeAnswer) WriteHeader(status int)      { a.status = status }
func (a *wholeAnswer) Write(p []byte) (int, error) { return a.body.Write(p) }
