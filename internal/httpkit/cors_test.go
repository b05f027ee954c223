package httpkit

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/problem"
)

const page = "https://app.example.com"

func testCORS(next http.HandlerFunc) http.Handler {
	return CORS{Origins: []string{page, "http://localhost:5173"}, Methods: func(path string) []string {
		if path == "/in" {
			return []string{http.MethodPost}
		}
		return nil
	}}.Wrap(next)
}

// A page that is not shown an error's status and Retry-After cannot do as it is asked.
func TestErrorsAreShownToPages(t *testing.T) {
	for _, err := range []error{
		problem.New(problem.Unauthenticated, "x", "x"), ErrTooManyAtOnce, problem.New(problem.Unavailable, "x", "x"), errors.New("a fault"),
	} {
		for origin, want := range map[string]string{page: page, "http://localhost:5173": "http://localhost:5173", "https://other.example": ""} {
			r := httptest.NewRequest("POST", "/in", nil)
			r.Header.Set("Origin", origin)
			w := httptest.NewRecorder()
			testCORS(func(w http.ResponseWriter, _ *http.Request) { WriteProblem(w, err) }).ServeHTTP(w, r)
			if got := w.Header().Get("Access-Control-Allow-Origin"); got != want || w.Header().Get("Vary") != "Origin" {
				t.Errorf("%v for %s: %v", err, origin, w.Header())
			}
			if got := w.Header().Get("Access-Control-Expose-Headers"); want != "" && (!strings.Contains(got, "Retry-After") || !strings.Contains(got, "Age")) {
				t.Errorf("%v: a page sees %q", err, got)
			}
		}
	}
}

// An origin counts as it was named, byte for byte.
func TestOriginsAreExact(t *testing.T) {
	for _, origins := range [][]string{
		{"https://app.example.com."}, {"https://app.example.com:443"}, {"https://APP.example.com"}, {"http://app.example.com"}, {"https://app.example.com/"},
		{"https://x.app.example.com"}, {"https://app.example.com.evil.example"}, {"https://evilapp.example.com"}, {"https://appxexample.com"},
		{"http://localhost"}, {"http://localhost:51730"}, {"null"}, {""}, {"*"}, {page, page}, {page, "https://evil.example"}, {page + ", " + page}, nil,
	} {
		for _, method := range []string{"POST", "OPTIONS"} {
			r := httptest.NewRequest(method, "/in", nil)
			r.Header["Origin"] = origins
			r.Header.Set("Access-Control-Request-Method", "POST")
			w, reached := httptest.NewRecorder(), false
			testCORS(func(http.ResponseWriter, *http.Request) { reached = true }).ServeHTTP(w, r)
			for name := range w.Header() {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s from %q: %v", method, origins, w.Header())
				}
			}
			if !reached || w.Header().Get("Vary") != "Origin" {
				t.Errorf("%s from %q: reached %v, %v", method, origins, reached, w.Header())
			}
		}
	}
}
