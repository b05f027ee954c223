package httpkit

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/trace"
)

// The id of a request is in its answer and in the entries about it. A proxy may choose it, and
// nobody else.
func TestRequestIDs(t *testing.T) {
	var out bytes.Buffer
	mux := http.NewServeMux()
	mux.HandleFunc("GET /x", func(w http.ResponseWriter, _ *http.Request) { WriteProblem(w, errors.New("the reason")) })
	h := NewObserver(Observing{
		Registerer: prometheus.NewRegistry(), Proxies: Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		Logger: slog.New(trace.Handler(slog.NewTextHandler(&out, nil))),
	}).Wrap(mux)
	for _, tt := range []struct {
		name, peer string
		given      []string
		taken      bool
	}{
		{"a proxy chooses", "10.1.2.3:4", []string{"chosen-by.the_proxy"}, true},
		{"a client chooses", "192.0.2.1:4", []string{"chosen-by.the_proxy"}, false},
		{"a proxy leaves it out", "10.1.2.3:4", nil, false},
		{"a proxy passes on two", "10.1.2.3:4", []string{"a", "b"}, false},
		{"a proxy passes on what is none", "10.1.2.3:4", []string{"a b"}, false},
		{"a proxy passes on what is too long", "10.1.2.3:4", []string{strings.Repeat("a", 65)}, false},
	} {
		out.Reset()
		r, w := httptest.NewRequest("GET", "/x", nil), httptest.NewRecorder()
		r.RemoteAddr, r.Header[RequestID] = tt.peer, tt.given
		h.ServeHTTP(w, r)
		got := w.Header()[RequestID]
		if len(got) != 1 || (len(tt.given) > 0 && got[0] == tt.given[0]) != tt.taken || !tt.taken && len(got[0]) != 32 {
			t.Errorf("%s: it is %q", tt.name, got)
			continue
		}
		if !strings.Contains(out.String(), " request_id="+got[0]+"\n") || strings.Contains(out.String(), "trace_id") {
			t.Errorf("%s: the log has %s", tt.name, out.String())
		}
	}
}
