package httpkit

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A recorder notes how a request was answered, and why it failed.
type recorder struct {
	http.ResponseWriter
	status int
	cause  error
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write notes the status that a first write implies.
func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach flushes and deadlines.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// NoteCause tells the log why a request failed.
func NoteCause(w http.ResponseWriter, cause error) {
	if rec, ok := w.(*recorder); ok {
		rec.cause = cause
	}
}

// An observer counts and logs requests: every failure of ours with its cause,
// and, at the debug level, every request. Paths and queries may hold what should
// not be in a log; the route's pattern is what is written down.
type observer struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	logger   *slog.Logger
	routes   sync.Map // pattern → *routeMetrics: looking labels up costs more than counting
}

// routeMetrics are the metrics of one route.
type routeMetrics struct {
	seconds  prometheus.Observer
	statuses sync.Map // int → prometheus.Counter
}

func NewObserver(r prometheus.Registerer, logger *slog.Logger) *observer {
	o := &observer{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_http_requests_total",
			Help: "HTTP requests by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "watchword_http_request_duration_seconds",
			Help:    "Time to answer, by route.",
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5},
		}, []string{"route"}),
		logger: logger,
	}
	r.MustRegister(o.requests, o.seconds)
	return o
}

func (o *observer) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		rec := &recorder{ResponseWriter: w}
		o.serve(next, rec, r)
		took := time.Since(began)

		route := r.Pattern // set by the mux on the way in
		o.count(route, rec.status, took)
		switch {
		case rec.status == http.StatusServiceUnavailable:
			o.logger.Warn("request refused", "route", route, "err", rec.cause)
		case rec.status >= http.StatusInternalServerError:
			o.logger.Error("request failed", "route", route, "status", rec.status, "err", rec.cause)
		case o.logger.Enabled(r.Context(), slog.LevelDebug):
			o.logger.Debug("request", "route", route, "status", rec.status, "took", took)
		}
	})
}

// serve answers a panic, which net/http would only tell to a log that is off. If
// the answer has begun, the connection is cut, so that no client takes it for complete.
func (o *observer) serve(next http.Handler, rec *recorder, r *http.Request) {
	defer func() {
		thrown := recover()
		if thrown == nil {
			return
		}
		if err, ok := thrown.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(err)
		}
		o.logger.Error("panic; this is a bug", "route", r.Pattern, "panic", fmt.Sprint(thrown), "stack", string(debug.Stack()))
		if rec.status != 0 {
			panic(http.ErrAbortHandler)
		}
		WriteProblem(rec, fmt.Errorf("panic: %v", thrown))
	}()
	next.ServeHTTP(rec, r)
}

func (o *observer) count(route string, status int, took time.Duration) {
	m, ok := o.routes.Load(route)
	if !ok {
		m, _ = o.routes.LoadOrStore(route, &routeMetrics{seconds: o.seconds.WithLabelValues(route)})
	}
	metrics := m.(*routeMetrics)
	metrics.seconds.Observe(took.Seconds())
	c, ok := metrics.statuses.Load(status)
	if !ok {
		c, _ = metrics.statuses.LoadOrStore(status, o.requests.WithLabelValues(route, strconv.Itoa(status)))
	}
	c.(prometheus.Counter).Inc()
}
