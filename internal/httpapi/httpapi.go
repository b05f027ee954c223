package httpapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/feed"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/trace"
)

// Config is what the HTTP face is made of.
type Config struct {
	Auth      *Auth
	KeySets   *KeySets
	Metadata  *Metadata
	Feed      *feed.Feed
	Peers     *Peers
	Health    *Health
	Login     *login.Service
	Factors   *mfa.Service
	Directory *directory.Service
	Cluster   cluster.Viewer
	Limits    limit.Administration
	Proxies   httpkit.Proxies
	// Pages are added to what is served; nil: there are none.
	Pages interface{ Mount(*http.ServeMux) }
	// Budget bounds how many requests are served at once.
	Budget *httpkit.Budget
	// Origins are those whose pages may call some routes; see CORS.
	Origins []string
	Metrics *prometheus.Registry
	// MetricsApart leaves out the route of the metrics, which have a listener of their own.
	MetricsApart bool
	// Tracer begins the traces; nil: there are none. FromReplica reports whether a request of
	// another replica is of the trace that it names.
	Tracer      *trace.Tracer
	FromReplica func(r *http.Request) bool
	Logger      *slog.Logger
	Version     string
}

// New returns the handler of everything that is served.
func New(c Config) http.Handler {
	mux := http.NewServeMux()
	api := httpkit.NewAPI(mux, c.Version, c.Login, c.Proxies, c.Budget)
	type face interface{ Mount(*httpkit.API) }
	faces := []face{
		c.Auth, c.KeySets, c.Metadata, c.Feed, c.Peers, c.Health,
		&Sessions{Login: c.Login},
		&Me{Login: c.Login},
		&MFA{Login: c.Login, Factors: c.Factors, Proxies: c.Proxies},
		&Admin{Directory: c.Directory},
		&Cluster{Admin: cluster.Admin{Cluster: c.Cluster, Rights: c.Directory}},
		&Limits{Limits: c.Limits, Directory: c.Directory},
		&Audit{Directory: c.Directory},
	}
	if !c.MetricsApart {
		faces = append(faces, &Metrics{Registry: c.Metrics})
	}
	for _, f := range faces {
		f.Mount(api)
	}
	mountDocument(api)
	if c.Pages != nil {
		c.Pages.Mount(mux)
	}
	mux.HandleFunc("/", unrouted(mux))
	return httpkit.NewObserver(httpkit.Observing{
		Registerer: c.Metrics, Proxies: c.Proxies, Tracer: c.Tracer, FromReplica: c.FromReplica, Logger: c.Logger,
	}).Wrap(secured(CORS(c.Origins).Wrap(cleanPaths(mux))))
}

// mountDocument serves the description of all routes, also its own.
func mountDocument(api *httpkit.API) {
	var document func() ([]byte, error)
	api.Handle(httpkit.Route{
		Method: http.MethodGet, Path: "/openapi.json", ID: "openapi", Tag: "probes", Summary: "This document",
		Status: http.StatusOK, Answer: map[string]any{}, Type: httpkit.JSON,
	}, func(w http.ResponseWriter, _ *http.Request) {
		text, err := document()
		if err != nil {
			httpkit.WriteProblem(w, fmt.Errorf("httpapi: openapi: %w", err))
			return
		}
		w.Header().Set("Content-Type", httpkit.JSON)
		_, _ = w.Write(text) // an error means that the client is gone
	})
	document = api.Document()
}

var (
	errNoRoute  = problem.New(problem.NotFound, "no_such_path", "there is nothing at this path; /openapi.json lists what there is")
	errNoMethod = problem.New(problem.WrongMethod, "method_not_allowed", "this path does not know this method; Allow lists those it knows")
)

// unrouted answers, in our own form, what no other route takes: a path that is not
// there, or a method that it does not know.
func unrouted(mux *http.ServeMux) http.HandlerFunc {
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete}
	return func(w http.ResponseWriter, r *http.Request) {
		var allowed []string
		for _, method := range methods {
			other := &http.Request{Method: method, URL: r.URL, Host: r.Host}
			if _, pattern := mux.Handler(other); pattern != r.Pattern {
				allowed = append(allowed, method)
			}
		}
		if len(allowed) == 0 {
			httpkit.WriteProblem(w, errNoRoute)
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		httpkit.WriteProblem(w, errNoMethod)
	}
}

// cleanPaths refuses a path that has "//", "." or ".." in it, which http.ServeMux would
// redirect, with a page.
func cleanPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := r.URL.EscapedPath()
		if clean := path.Clean(got); got != clean && got != clean+"/" {
			r.Pattern = "/" // as of all that is not there
			httpkit.WriteProblem(w, errNoRoute)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// secured sets what every answer carries that says nothing else, as pages do: it is no page,
// may not be framed, and is not taken for another type.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-Content-Type-Options"] = nosniff
		h["Content-Security-Policy"] = noContentAtAll
		next.ServeHTTP(w, r)
	})
}

var (
	nosniff        = []string{"nosniff"}
	noContentAtAll = []string{"default-src 'none'; frame-ancestors 'none'"}
)

// JWKS describes a key set (RFC 7517 §5).
type JWKS struct {
	Keys []JWK `json:"keys" nullable:"false"`
}

// JWK describes a public key (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
type JWK struct {
	KeyType   string `json:"kty" enum:"EC,OKP,RSA"`
	Use       string `json:"use" enum:"sig"`
	Algorithm string `json:"alg" enum:"ES256,ES384,ES512,EdDSA,RS256,PS256"`
	KeyID     string `json:"kid"`
	Curve     string `json:"crv,omitempty" enum:"P-256,P-384,P-521,Ed25519"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	N         string `json:"n,omitempty"`
	E         string `json:"e,omitempty"`
	Expires   int64  `json:"exp,omitempty" doc:"with local=true: the last second in which a token of it can be valid"`
}
