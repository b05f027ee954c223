package httpkit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/propagation"

	"github.com/watchword-auth/watchword/internal/trace"
)

// A recorder notes how a request was answered, and why it failed.
type recorder struct {
	http.ResponseWriter
	status int
	cause  error
	id     [1]string // of the request; as the header has it
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

// RequestID is the header with the id of a request, by which it is found in the logs of the
// proxy and of this replica.
const RequestID = "X-Request-Id"

// Observing is what an observer needs.
type Observing struct {
	Registerer prometheus.Registerer
	// Proxies are believed about the id of a request, and of what trace it is.
	Proxies Proxies
	// Tracer begins the traces; nil: there are none.
	Tracer *trace.Tracer
	// FromReplica reports whether a request is one of another replica, which is believed, too;
	// nil: there is no other.
	FromReplica func(r *http.Request) bool
	Logger      *slog.Logger
}

// An observer counts, logs and traces requests: the log has every failure of ours with its
// cause, and, at the debug level, every request. Paths and queries may hold what should not be
// in a log; the route's pattern is what is written down.
type observer struct {
	Observing
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	routes   sync.Map // pattern → *routeMetrics: looking labels up costs more than counting
}

// routeMetrics are the metrics of one route.
type routeMetrics struct {
	seconds  prometheus.Observer
	statuses sync.Map // int → prometheus.Counter
}

// NewObserver returns an observer.
func NewObserver(c Observing) *observer {
	o := &observer{
		Observing: c,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_http_requests_total",
			Help: "HTTP requests by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "watchword_http_request_duration_seconds",
			Help:    "Time to answer, by route.",
			Buckets: []float64{.0001, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"route"}),
	}
	c.Registerer.MustRegister(o.requests, o.seconds)
	return o
}

// Wrap observes the requests of a handler.
func (o *observer) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		rec := &recorder{ResponseWriter: w}
		rec.id[0] = o.identify(r)
		w.Header()[RequestID] = rec.id[:]
		ctx, step := o.trace(trace.WithRequest(r.Context(), &rec.id[0]), r)
		r = r.WithContext(ctx)
		defer func() { o.traced(step, r, rec) }() // also if the answer is cut
		o.serve(next, rec, r)
		took := time.Since(began)

		route := cmp.Or(r.Pattern, "/") // set by the mux on the way in, unless what stands before it has answered
		o.count(route, rec.status, took)
		switch {
		case rec.status == http.StatusServiceUnavailable:
			o.Logger.WarnContext(ctx, "request refused", "route", route, "err", rec.cause)
		case rec.status >= http.StatusInternalServerError:
			o.Logger.ErrorContext(ctx, "request failed", "route", route, "status", rec.status, "err", rec.cause)
		case o.Logger.Enabled(ctx, slog.LevelDebug):
			o.Logger.DebugContext(ctx, "request", "route", route, "status", rec.status, "took", took)
		}
	})
}

// identify returns the id of a request: the one that a trusted proxy has given it, or a new one.
// A client could choose one that stands for another request in the log.
func (o *observer) identify(r *http.Request) string {
	if given := r.Header[RequestID]; len(given) == 1 && trace.ValidID(given[0]) && o.ofProxy(r) {
		return given[0]
	}
	return trace.NewID()
}

// ofProxy reports whether a request comes from a trusted proxy.
func (o *observer) ofProxy(r *http.Request) bool {
	peer, ok := peerOf(r)
	return ok && o.Proxies.trusts(peer)
}

// trace begins the trace of a request, or goes on with that of a trusted proxy or of another
// replica. What a client says of a trace counts for nothing: it could have each of its requests
// traced, or add them to somebody else's trace.
func (o *observer) trace(ctx context.Context, r *http.Request) (context.Context, trace.Step) {
	if o.Tracer == nil {
		return ctx, trace.Step{}
	}
	var carrier propagation.TextMapCarrier
	if len(r.Header[trace.Parent]) == 1 && (o.ofProxy(r) || o.FromReplica != nil && o.FromReplica(r)) {
		carrier = propagation.HeaderCarrier(r.Header)
	}
	return o.Tracer.Request(ctx, carrier, !untraced[r.URL.Path])
}

// untraced are the paths that begin no trace: probes, which come all the time and go no
// further, and the feed, whose requests last as long as their readers like.
var untraced = map[string]bool{"/livez": true, "/readyz": true, "/health": true, "/metrics": true, "/api/revocations": true}

// traced ends the step of a request.
func (o *observer) traced(step trace.Step, r *http.Request, rec *recorder) {
	if !step.On() {
		return
	}
	method, path, found := strings.Cut(cmp.Or(r.Pattern, "/"), " ")
	if !found { // a route for all methods, of which a client may make up some
		method, path = "_OTHER", method
		if slices.Contains(openAPIMethods, r.Method) {
			method = r.Method
		}
	}
	step.Rename(method + " " + path)
	step.Set(trace.Text("http.request.method", method), trace.Text("http.route", path),
		trace.Number("http.response.status_code", rec.status), trace.Text("watchword.request_id", rec.id[0]))
	if rec.status >= http.StatusInternalServerError || rec.status == 0 {
		step.Fail()
	}
	step.End(nil)
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
		o.Logger.ErrorContext(r.Context(), "panic; this is a bug", "route", r.Pattern, "panic", fmt.Sprint(thrown), "stack", string(debug.Stack()))
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
