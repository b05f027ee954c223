package httpapi

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/cluster"
)

// With mutual TLS, only a replica that has shown its certificate may ask about a token.
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
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, cluster.TokenPath, strings.NewReader(`{"question":"c2VhbGVk"}`))
		r.Header.Set(cluster.HeaderNonce, "a nonce")
		w := httptest.NewRecorder()
		p.verify(w, r)
		if w.Code != want || asked == mutual || (w.Header().Get(cluster.HeaderMAC) == "mac") == mutual {
			t.Errorf("mutual TLS %v: %d, asked %v, %v", mutual, w.Code, asked, w.Header())
		}
	}
}
