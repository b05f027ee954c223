package httpapi

import (
	"bytes"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxGathers is how many answers of the metrics are put together at once; the
// others wait for their turn.
const maxGathers = 4

// metricsHandler serves the metrics. An answer is whole before it is sent: it is
// open to anybody, so a slow reader may hold the few kilobytes of it and nothing
// else, above all none of the places of those who are faster.
func metricsHandler(registry *prometheus.Registry) http.Handler {
	gather := promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true})
	places := make(chan struct{}, maxGathers)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		whole := wholeAnswer{header: w.Header(), status: http.StatusOK}
		places <- struct{}{}
		gather.ServeHTTP(&whole, r)
		<-places
		body := whole.body.Bytes()
		w.Header().Set("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header) {
			w.Header().Set("Content-Encoding", "gzip")
			body = zipped(body)
		}
		writeSlowly(w, whole.status, body)
	})
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
