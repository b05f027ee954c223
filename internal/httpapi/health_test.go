package httpapi

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/httpkit"
)

// However many ask how it is, the storage is asked once at a time.
func TestHealthAsksOnceAtATime(t *testing.T) {
	var running, most atomic.Int64
	h := &Health{Timeout: time.Minute, Backends: map[string]func(context.Context) error{"database": func(context.Context) error {
		now := running.Add(1)
		defer running.Add(-1)
		if now > most.Load() {
			most.Store(now)
		}
		time.Sleep(5 * time.Millisecond) // as long as a database may take
		return errors.New("away")
	}}}
	mux := http.NewServeMux()
	h.Mount(httpkit.NewAPI(mux, "test", nil, httpkit.Proxies{}, nil))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 5 {
				w := httptest.NewRecorder()
				mux.ServeHTTP(w, httptest.NewRequest("GET", "/health", nil))
				if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
					t.Errorf("%d %v", w.Code, w.Header())
				}
			}
		})
	}
	all.Wait()
	if most.Load() != 1 {
		t.Errorf("%d ask at once", most.Load())
	}
}
