package canary

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var taken atomic.Pointer[time.Time]
		token := Token{
			Issue:  func(context.Context) (string, error) { return "token", nil },
			Revoke: func(context.Context, string) error { now := time.Now(); taken.Store(&now); return nil },
		}
		began := time.Now()
		watcher := func(name string, knows, refuses time.Duration) Watcher {
			return Watcher{name, func(_ context.Context, got string) (bool, error) {
				if got != "token" {
					t.Errorf("asked about %q", got)
				}
				if at := taken.Load(); at != nil {
					return time.Since(*at) < refuses, nil
				}
				return time.Since(began) >= knows, nil
			}}
		}
		silent := Watcher{"silent", func(context.Context, string) (bool, error) { return false, errors.New("no answer") }}
		slow := watcher("slow", 0, 0)
		answer := slow.Accepts
		slow.Accepts = func(ctx context.Context, token string) (bool, error) {
			time.Sleep(time.Minute / 100)
			return answer(ctx, token)
		}
		results, err := Run(t.Context(), token, 5*time.Second, []Watcher{
			watcher("at once", 0, 0), watcher("soon", time.Second, time.Second), watcher("never", 0, time.Hour), watcher("stranger", time.Hour, 0), silent, slow,
		})
		if err != nil || len(results) != 6 {
			t.Fatalf("%+v, %v", results, err)
		}
		for i, want := range []string{"", "", "it does not refuse the revoked token: after 5s: it accepts it", "it does not accept a good token: after 10s: it refuses it", "it does not accept a good token: after 10s: no answer", ""} {
			if got := results[i].Err; got == nil && want != "" || got != nil && got.Error() != want {
				t.Errorf("%s: %v, want %q", results[i].Name, got, want)
			}
		}
		if results[0].Refused != 0 || results[1].Refused != time.Second || results[5].Refused != time.Minute/100 {
			t.Errorf("refused after %v, %v and %v", results[0].Refused, results[1].Refused, results[5].Refused)
		}
	})
}

func TestNoTokenOrNotRevoked(t *testing.T) {
	broken := errors.New("broken")
	issued := func(context.Context) (string, error) { return "token", nil }
	for _, token := range []Token{
		{Issue: func(context.Context) (string, error) { return "", broken }},
		{Issue: issued, Revoke: func(context.Context, string) error { return broken }},
	} {
		if _, err := Run(t.Context(), token, time.Second, nil); !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
	}
}

func TestReplica(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/verify" || r.Header.Get("Authorization") != "Bearer token" {
			t.Errorf("it was asked %s with %s", r.URL, r.Header.Get("Authorization"))
		}
		w.WriteHeader(status)
	}))
	defer server.Close()
	w := Replica(server.URL, server.Client())
	for _, c := range []struct {
		status  int
		accepts bool
		err     string
	}{{200, true, ""}, {401, false, ""}, {503, false, "it answers 503"}} {
		status = c.status
		accepts, err := w.Accepts(t.Context(), "token")
		if accepts != c.accepts || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%d: %v, %v", c.status, accepts, err)
		}
	}
}
