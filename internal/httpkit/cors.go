package httpkit

import (
	"net/http"
	"slices"
	"strings"
)

// CORS lets web pages of named origins read the answers of some routes (Fetch Standard, "HTTP
// CORS protocol"). Pages of all other origins are answered as any client is, and their
// browser keeps the answer from them.
type CORS struct {
	// Origins are named as browsers send them.
	Origins []string
	// Methods returns the methods by which a page may call a path; nil: by none.
	Methods func(path string) []string
}

// What pages may send and read beyond what the standard lets every page.
const (
	corsRequestHeaders = "Accept, Authorization, Cache-Control, Content-Type, If-None-Match, Last-Event-ID"
	corsAnswerHeaders  = "Age, Date, ETag, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, X-Request-Id"
	// corsMaxAge is for how many seconds a browser need not ask again. Longer, and a page
	// whose origin was just named would be kept out for as long.
	corsMaxAge = "600"
)

// Wrap adds the headers to the answers of next, also to those that next gives to requests
// that fail, and answers the preflight requests of named origins.
func (c CORS) Wrap(next http.Handler) http.Handler {
	if len(c.Origins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		methods := c.Methods(r.URL.Path)
		if methods == nil {
			next.ServeHTTP(w, r)
			return
		}
		h := w.Header()
		h.Add("Vary", "Origin") // also to an answer without the headers: a cache must not give it to a page
		origin := r.Header["Origin"]
		if len(origin) != 1 || !slices.Contains(c.Origins, origin[0]) {
			next.ServeHTTP(w, r)
			return
		}
		method := r.Method
		preflight := method == http.MethodOptions
		if preflight {
			method = r.Header.Get("Access-Control-Request-Method")
		}
		if !slices.Contains(methods, method) {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Origin", origin[0])
		h.Set("Access-Control-Allow-Credentials", "true")
		if !preflight {
			h.Set("Access-Control-Expose-Headers", corsAnswerHeaders)
			next.ServeHTTP(w, r)
			return
		}
		r.Pattern = http.MethodOptions // for the metrics; the path may be any
		h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
		h.Set("Access-Control-Allow-Headers", corsRequestHeaders)
		h.Set("Access-Control-Max-Age", corsMaxAge)
		w.WriteHeader(http.StatusNoContent)
	})
}
