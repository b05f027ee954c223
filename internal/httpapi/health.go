package httpapi

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/problem"
)

// Health answers the probes. The process being alive, its being able to take
// traffic, and the storage behind it being well are three questions: one that is
// asked to decide about a restart must not depend on a database that is away.
type Health struct {
	// Backends are the configured storage backends by name.
	Backends map[string]func(context.Context) error
	// Ready returns why no traffic should come; nil: it may.
	Ready func() error
	// Timeout bounds the question to a backend.
	Timeout time.Duration

	draining atomic.Bool
	asking   singleflight.Group
}

// BackendHealth is the state of one storage backend.
type BackendHealth struct {
	Status    string  `json:"status" enum:"ok,failed"`
	LatencyMS float64 `json:"latency_ms" doc:"how long the answer took"`
}

// HealthReport answers GET /health.
type HealthReport struct {
	Status   string                   `json:"status" enum:"ok,failed"`
	Backends map[string]BackendHealth `json:"backends"`
}

// Liveness answers GET /livez.
type Liveness struct {
	Status string `json:"status" enum:"alive"`
}

// Readiness answers GET /readyz.
type Readiness struct {
	Status string `json:"status" enum:"ready,not_ready"`
	Reason string `json:"reason,omitempty"`
}

// Mount adds the routes.
func (h *Health) Mount(api *httpkit.API) {
	api.Handle(httpkit.Route{
		Method: http.MethodGet, Path: "/health", ID: "health", Tag: "probes", Summary: "Whether every storage backend answers",
		Status: http.StatusOK, Answer: HealthReport{}, Type: httpkit.JSON,
		OtherAnswers: []httpkit.Other{{Status: http.StatusServiceUnavailable, Answer: HealthReport{}, Type: httpkit.JSON}},
	}, h.health)
	api.Handle(httpkit.Route{
		Method: http.MethodGet, Path: "/livez", ID: "livez", Tag: "probes", Summary: "Whether the process is alive",
		AnswersDuringStart: true, Status: http.StatusOK, Answer: Liveness{}, Type: httpkit.JSON,
	}, h.alive)
	api.Handle(httpkit.Route{
		Method: http.MethodGet, Path: "/readyz", ID: "readyz", Tag: "probes", Summary: "Whether this replica may take traffic",
		AnswersDuringStart: true, Status: http.StatusOK, Answer: Readiness{}, Type: httpkit.JSON,
		OtherAnswers: []httpkit.Other{{Status: http.StatusServiceUnavailable, Answer: Readiness{}, Type: httpkit.JSON}},
	}, h.ready)
}

// Probes returns a handler of /livez and /readyz alone, for a replica that is starting.
func (h *Health) Probes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", h.alive)
	mux.HandleFunc("GET /readyz", h.ready)
	return mux
}

// Drain makes the replica say that it takes no more traffic.
func (h *Health) Drain() { h.draining.Store(true) }

// health says how the backends are. What exactly failed is in the log; the endpoint
// is open and says only that.
func (h *Health) health(w http.ResponseWriter, r *http.Request) {
	// Anybody may ask, so all who ask at the same time share one question.
	shared, cause, _ := h.asking.Do("", func() (any, error) { return h.ask(context.WithoutCancel(r.Context())) })
	status := http.StatusOK
	if cause != nil {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
		httpkit.NoteCause(w, cause)
	}
	httpkit.WriteJSON(w, status, shared)
}

// ask asks all backends side by side, and returns what went wrong with one of them
// beside the report.
func (h *Health) ask(ctx context.Context) (report HealthReport, cause error) {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	report = HealthReport{Status: "ok", Backends: make(map[string]BackendHealth, len(h.Backends))}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, ping := range h.Backends {
		wg.Go(func() {
			began := time.Now()
			err := ping(ctx)
			one := BackendHealth{Status: "ok", LatencyMS: float64(time.Since(began).Microseconds()) / 1000}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				one.Status, report.Status, cause = "failed", "failed", err
			}
			report.Backends[name] = one
		})
	}
	wg.Wait()
	return report, cause
}

func (h *Health) alive(w http.ResponseWriter, _ *http.Request) {
	httpkit.WriteJSON(w, http.StatusOK, Liveness{Status: "alive"})
}

func (h *Health) ready(w http.ResponseWriter, _ *http.Request) {
	reason := ""
	if h.draining.Load() {
		reason = "this replica is shutting down"
	} else if err := h.Ready(); err != nil {
		reason = problem.From(err).Detail
		httpkit.NoteCause(w, err)
	}
	if reason != "" {
		w.Header().Set("Retry-After", "1")
		httpkit.WriteJSON(w, http.StatusServiceUnavailable, Readiness{Status: "not_ready", Reason: reason})
		return
	}
	httpkit.WriteJSON(w, http.StatusOK, Readiness{Status: "ready"})
}
