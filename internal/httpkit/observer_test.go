package httpkit

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/trace"
)

// observed answers one request through an observer and returns its log.
func observed(t *testing.T, h http.HandlerFunc) (rec *httptest.ResponseRecorder, log string, thrown any) {
	t.Helper()
	var out bytes.Buffer
	mux := http.NewServeMux()
	mux.HandleFunc("GET /x", h)
	rec = httptest.NewRecorder()
	func() {
		defer func() { thrown = recover() }()
		o := NewObserver(Observing{Registerer: prometheus.NewRegistry(), Logger: slog.New(trace.Handler(slog.NewTextHandler(&out, nil)))})
		o.Wrap(mux).ServeHTTP(rec, httptest.NewRequest("GET", "/x?token=secret", nil))
	}()
	return rec, out.String(), thrown
}

// A panic is answered like any other failure of ours, and is not hidden from the
// operator.
func TestAPanicIsAnsweredAndLogged(t *testing.T) {
	rec, log, thrown := observed(t, func(http.ResponseWriter, *http.Request) { panic("out of its mind") })
	if rec.Code != 500 || rec.Header().Get("Content-Type") != "application/problem+json" || strings.Contains(rec.Body.String(), "mind") || thrown != nil {
		t.Errorf("%d %s, %v", rec.Code, rec.Body, thrown)
	}
	if !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "out of its mind") || !strings.Contains(log, "observer_test.go") {
		t.Errorf("the log has %q", log)
	}

	// Half an answer is no answer: the connection has to be cut.
	_, log, thrown = observed(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{")); panic("later") })
	if err, ok := thrown.(error); !ok || !errors.Is(err, http.ErrAbortHandler) || !strings.Contains(log, "later") {
		t.Errorf("thrown %v, logged %q", thrown, log)
	}
}

func TestTheLogKnowsRoutesNotQueries(t *testing.T) {
	_, log, _ := observed(t, func(w http.ResponseWriter, r *http.Request) {
		WriteProblem(w, errors.New("the reason"))
	})
	if !strings.Contains(log, "GET /x") || !strings.Contains(log, "the reason") || strings.Contains(log, "secret") {
		t.Errorf("the log has %q", log)
	}
}
