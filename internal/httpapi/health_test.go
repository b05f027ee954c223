package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
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

// However many probes there are, the backends are asked ten times a second at most.
func TestProbesShareAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		h := &Health{Timeout: time.Minute, Ready: func() error { return nil }, Backends: map[string]func(context.Context) error{
			"database": func(context.Context) error { asked.Add(1); return nil },
		}}
		mux := http.NewServeMux()
		h.Mount(httpkit.NewAPI(mux, "test", nil, httpkit.Proxies{}, nil))
		for range 3000 { // a thousand a second
			for _, path := range []string{"/health", "/readyz"} {
				w := httptest.NewRecorder()
				mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if w.Code != http.StatusOK {
					t.Fatalf("%s: %d %s", path, w.Code, w.Body)
				}
			}
			time.Sleep(time.Millisecond)
		}
		if n := asked.Load(); n != 3*maxCheckups {
			t.Errorf("asked %d times in three seconds", n)
		}
	})
}

// A replica is not ready for logins while a backend takes no writes that they need, and says
// why.
func TestNotReadyWithoutWrites(t *testing.T) {
	for name, tt := range map[string]struct {
		err         error
		backend     string
		dispensable []string
		without     bool
		status      int
		reason      string
	}{
		"the database is read-only":                             {store.ErrReadOnly, "database", nil, false, 503, "the database takes no writes"},
		"the database is full":                                  {store.ErrFull, "database", nil, false, 503, "the database has no space left"},
		"the database is away":                                  {store.ErrBusy, "database", nil, false, 503, "the database does not answer"},
		"the signer is away":                                    {errors.New("gone"), "remote", nil, false, 503, "the remote signer does not answer"},
		"Redis takes no writes":                                 {state.ErrUnavailable.Because(state.ErrReadOnly), "redis", nil, false, 503, "Redis takes no writes"},
		"logins do without Redis":                               {state.ErrUnavailable, "redis", []string{"redis"}, false, 200, ""},
		"the operator wants tokens to be verified all the same": {store.ErrBusy, "database", nil, true, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := &Health{Timeout: time.Minute, Ready: func() error { return nil }, Dispensable: tt.dispensable, Signer: "remote", ReadyWithoutWrites: tt.without,
				Backends: map[string]func(context.Context) error{
					tt.backend: func(context.Context) error { return fmt.Errorf("secret: %w", tt.err) },
					"another":  func(context.Context) error { return nil },
				}}
			mux := http.NewServeMux()
			h.Mount(httpkit.NewAPI(mux, "test", nil, httpkit.Proxies{}, nil))
			get := func(path string) *httptest.ResponseRecorder {
				w := httptest.NewRecorder()
				mux.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
				if strings.Contains(w.Body.String(), "secret") {
					t.Errorf("it says too much: %s", w.Body)
				}
				return w
			}
			w := get("/readyz")
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.reason) || tt.status == 503 && w.Header().Get("Retry-After") == "" {
				t.Errorf("ready: %d %s", w.Code, w.Body)
			}
			if says := strings.Contains(w.Body.String(), "logout"); says != (tt.status == 503 && tt.backend != "remote") {
				t.Errorf("ready: of logout it says %v: %s", says, w.Body)
			}
			if w := get("/health"); w.Code != 503 || !strings.Contains(w.Body.String(), tt.reason) {
				t.Errorf("health: %d %s", w.Code, w.Body)
			}
			if w := get("/livez"); w.Code != 200 {
				t.Errorf("alive: %d", w.Code)
			}
		})
	}
}
