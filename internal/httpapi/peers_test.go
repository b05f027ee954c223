package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/httpkit"
)

// With mutual TLS, only a replica that has shown its certificate may ask about a token, or how this
// one is.
func TestPeersShowACertificate(t *testing.T) {
	for mutual, want := range map[bool]int{false: http.StatusOK, true: http.StatusForbidden} {
		asked := false
		p := &Peers{
			MutualTLS: mutual,
			Accepts:   func(context.Context, string) (bool, error) { return true, nil },
			Answer: func(nonce string, q cluster.TokenQuestion, accepts func(string) (bool, error)) ([]byte, string, string, error) {
				asked = nonce == "a nonce" && string(q.Sealed) == "sealed"
				return []byte("{}"), "auth-1", "mac", nil
			},
		}
		p.Examined = func(_ *http.Request, nonce string, q cluster.ExamineQuestion) ([]byte, string, string, error) {
			return p.Answer(nonce, cluster.TokenQuestion(q), nil)
		}
		for path, serve := range map[string]http.HandlerFunc{cluster.TokenPath: p.verify, cluster.ExaminePath: p.examine} {
			asked = false
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, strings.NewReader(`{"question":"c2VhbGVk"}`))
			r.Header.Set(cluster.HeaderNonce, "a nonce")
			w := httptest.NewRecorder()
			serve(w, r)
			if w.Code != want || asked == mutual || (w.Header().Get(cluster.HeaderMAC) == "mac") == mutual {
				t.Errorf("%s, mutual TLS %v: %d, asked %v, %v", path, mutual, w.Code, asked, w.Header())
			}
		}
	}
}

// A question has a bound, and is one value with known members.
func TestQuestionsAreBounded(t *testing.T) {
	p := &Peers{Examined: func(*http.Request, string, cluster.ExamineQuestion) ([]byte, string, string, error) {
		t.Error("it is answered")
		return nil, "", "", nil
	}}
	for name, c := range map[string]struct {
		body   string
		length int64
		want   int
	}{
		"a huge one":              {`{"question":"` + strings.Repeat("A", httpkit.MaxBody) + `"}`, 0, http.StatusRequestEntityTooLarge},
		"a huge one without size": {`{"question":"` + strings.Repeat("A", httpkit.MaxBody) + `"}`, -1, http.StatusRequestEntityTooLarge},
		"no JSON":                 {"question", 0, http.StatusBadRequest},
		"two":                     {`{"question":"AAAA"}{"question":"AAAA"}`, 0, http.StatusBadRequest},
		"another member":          {`{"question":"AAAA","token":"x"}`, 0, http.StatusUnprocessableEntity},
		"no base64":               {`{"question":"!"}`, 0, http.StatusUnprocessableEntity},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, cluster.ExaminePath, strings.NewReader(c.body))
		if c.length < 0 {
			r.ContentLength = -1
		}
		w := httptest.NewRecorder()
		p.examine(w, r)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, c.want, w.Body)
		}
	}
}
