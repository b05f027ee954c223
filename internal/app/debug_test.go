package app

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
)

// A page in a browser on this machine neither reads the debug port, nor slows the replica down by
// recordings, nor changes the level.
func TestDebugPortAnswersNoPage(t *testing.T) {
	level := new(slog.LevelVar)
	h := debugHandler(level, slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		what, method, path, host string
		header                   [2]string
		status                   int
	}{
		{"a program", "GET", "/debug/pprof/", "127.0.0.1:6060", [2]string{}, 200},
		{"somebody who types the address", "GET", "/debug/pprof/", "localhost:6060", [2]string{"Sec-Fetch-Site", "none"}, 200},
		{"a link on the list", "GET", "/debug/pprof/heap", "[::1]:6060", [2]string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"another name", "GET", "/debug/pprof/heap", "evil.example:6060", [2]string{}, 403},
		{"a page", "GET", "/debug/pprof/trace?seconds=300", "127.0.0.1:6060", [2]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"a page of another port", "GET", "/debug/pprof/profile?seconds=300", "localhost:6060", [2]string{"Sec-Fetch-Site", "same-site"}, 403},
		{"a page in an older browser", "PUT", levelPath, "127.0.0.1:6060", [2]string{"Origin", "https://evil.example"}, 403},
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader("debug"))
		r.Host = c.host
		if c.header[0] != "" {
			r.Header.Set(c.header[0], c.header[1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status {
			t.Errorf("%s: %d %s", c.what, w.Code, w.Body)
		}
	}
	if level.Level() != slog.LevelInfo {
		t.Errorf("the level is %v", level.Level())
	}
}
