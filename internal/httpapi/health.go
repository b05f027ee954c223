package httpapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// Health answers the probes. The process being alive, its being able to take
// traffic, and the storage behind it being well are three questions: one that is
// asked to decide about a restart must not depend on a database that is away.
type Health struct {
	// Backends are the configured storage backends by name: each returns nil if the backend
	// answers and takes writes.
	Backends map[string]func(context.Context) error
	// Dispensable are the names of those without which logins go on.
	Dispensable []string
	// Signer is the name of the backend that does nothing but sign; "": there is none.
	Signer string
	// Ready returns why no traffic should come; nil: it may.
	Ready func() error
	// ReadyWithoutWrites: also a replica that can write nothing takes traffic, because it goes
	// on verifying tokens (revocation.on_outage is allow).
	ReadyWithoutWrites bool
	// Checks counts the checks of the deployment that found something when they ran last; nil: they
	// have not run. A field that is nil says the same.
	Checks func() *CheckCounts
	// Timeout bounds the question to a backend.
	Timeout time.Duration

	draining atomic.Bool
	asking   singleflight.Group
	last     atomic.Pointer[checkup]
}

// maxCheckups is how often the backends are asked in a second at most, however many probes
// there are; the rest share the last answer.
const maxCheckups = 10

// A checkup is what all backends answered.
type checkup struct {
	report HealthReport
	causes map[string]error // by the name of the backend; of those that failed
	second time.Time        // when the second began in which this is the nth checkup
	nth    int
}

// holds reports whether no other checkup is due.
func (c *checkup) holds() bool {
	return c != nil && c.nth >= maxCheckups && time.Since(c.second) < time.Second
}

// BackendHealth is the state of one storage backend.
type BackendHealth struct {
	Status    string  `json:"status" enum:"ok,failed"`
	LatencyMS float64 `json:"latency_ms" doc:"how long the answer took"`
	Reason    string  `json:"reason,omitempty" doc:"why it failed"`
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
	// Checks are no reason to take no traffic.
	Checks *CheckCounts `json:"checks,omitempty" doc:"what the checks of the deployment found that this replica runs by itself; missing until they have run"`
}

// CheckCounts are how many checks of the deployment found something.
type CheckCounts struct {
	Errors   int `json:"errors" doc:"checks that found an error, or could not look for one"`
	Warnings int `json:"warnings" doc:"the same for warnings"`
}

// Mount adds the routes.
func (h *Health) Mount(api *httpkit.API) {
	api.Handle(httpkit.Route{
		Method: http.MethodGet, Path: "/health", ID: "health", Tag: "probes", Summary: "Whether every storage backend answers and takes writes",
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
	c := h.checkup(r.Context())
	status := http.StatusOK
	for _, cause := range c.causes {
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
		httpkit.NoteCause(w, cause)
	}
	httpkit.WriteJSON(w, status, c.report)
}

// Report says how the backends are, as GET /health does.
func (h *Health) Report(ctx context.Context) HealthReport { return h.checkup(ctx).report }

// checkup returns what the backends answer, or what they answered less than a second ago.
// Anybody may ask, so all who ask at the same time share one question.
func (h *Health) checkup(ctx context.Context) *checkup {
	if c := h.last.Load(); c.holds() {
		return c
	}
	shared, _, _ := h.asking.Do("", func() (any, error) {
		last := h.last.Load()
		if last.holds() { // another call has just ended
			return last, nil
		}
		c := h.ask(context.WithoutCancel(ctx))
		c.second, c.nth = time.Now(), 1
		if last != nil && time.Since(last.second) < time.Second {
			c.second, c.nth = last.second, last.nth+1
		}
		h.last.Store(c)
		return c, nil
	})
	return shared.(*checkup)
}

// ask asks all backends side by side.
func (h *Health) ask(ctx context.Context) *checkup {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	report := HealthReport{Status: "ok", Backends: make(map[string]BackendHealth, len(h.Backends))}
	causes := make(map[string]error)
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
				one.Status, report.Status, causes[name] = "failed", "failed", err
				one.Reason = reasonOf(name, err)
			}
			report.Backends[name] = one
		})
	}
	wg.Wait()
	return &checkup{report: report, causes: causes}
}

// reasonOf says in words what a backend's error means. The endpoints are open, and the error
// itself is in the log.
func reasonOf(name string, err error) string {
	if known := map[string]string{"database": "the database", "redis": "Redis", "state": "the shared state", "pkcs11": "the HSM", "remote": "the remote signer"}[name]; known != "" {
		name = known
	}
	switch {
	case errors.Is(err, store.ErrFull), errors.Is(err, state.ErrFull):
		return name + " has no space left"
	case errors.Is(err, store.ErrReadOnly), errors.Is(err, state.ErrReadOnly):
		return name + " takes no writes"
	}
	return name + " does not answer, or fails"
}

func (h *Health) alive(w http.ResponseWriter, _ *http.Request) {
	httpkit.WriteJSON(w, http.StatusOK, Liveness{Status: "alive"})
}

// unready says why no traffic should come, and what the cause of that is, if it is an error; "": it
// may come. It asks for a checkup only if that matters.
func (h *Health) unready(checkup func() *checkup) (reason string, cause error) {
	if h.draining.Load() {
		return "this replica is shutting down", nil
	}
	if err := h.Ready(); err != nil {
		return problem.From(err).Detail, err
	}
	if h.ReadyWithoutWrites || len(h.Backends) == 0 {
		return "", nil
	}
	c := checkup()
	for name, failed := range c.causes {
		switch {
		case slices.Contains(h.Dispensable, name):
		case name != h.Signer:
			reason, cause = c.report.Backends[name].Reason+", so that no login, renewal or logout is possible", failed
		case reason == "": // a logout needs no signature
			reason, cause = c.report.Backends[name].Reason+", so that no login or renewal is possible", failed
		}
	}
	return reason, cause
}

func (h *Health) ready(w http.ResponseWriter, r *http.Request) {
	reason, cause := h.unready(func() *checkup { return h.checkup(r.Context()) })
	if cause != nil {
		httpkit.NoteCause(w, cause)
	}
	var checks *CheckCounts
	if h.Checks != nil {
		checks = h.Checks()
	}
	if reason != "" {
		w.Header().Set("Retry-After", "1")
		httpkit.WriteJSON(w, http.StatusServiceUnavailable, Readiness{Status: "not_ready", Reason: reason, Checks: checks})
		return
	}
	httpkit.WriteJSON(w, http.StatusOK, Readiness{Status: "ready", Checks: checks})
}
