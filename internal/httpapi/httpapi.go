package httpapi

import (
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// Config is what the HTTP face is made of.
type Config struct {
	Auth      *Auth
	KeySets   *KeySets
	Feed      *Feed
	Health    *Health
	Login     *login.Service
	Directory *directory.Service
	Cluster   *cluster.Cluster // nil: this replica is alone
	Proxies   Proxies
	Metrics   *prometheus.Registry
	Logger    *slog.Logger
	Version   string
}

// New returns the handler of everything that is served.
func New(c Config) (http.Handler, error) {
	mux := http.NewServeMux()
	c.Auth.Mount(mux)
	c.KeySets.Mount(mux)
	c.Feed.Mount(mux)
	c.Health.Mount(mux)
	mux.Handle("GET /metrics", metricsHandler(c.Metrics))

	ops := NewOperations(mux, c.Version, c.Login, c.Proxies)
	(&Sessions{Login: c.Login, Directory: c.Directory}).Register(ops)
	(&Admin{Directory: c.Directory}).Register(ops)
	(&Cluster{Cluster: c.Cluster, Directory: c.Directory}).Register(ops)
	describeRoutes(ops)
	document, err := ops.document()
	if err != nil {
		return nil, fmt.Errorf("httpapi: openapi: %w", err)
	}
	mux.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(document) // the client is gone: there is nobody to tell
	})
	mux.HandleFunc("/", unrouted(mux))
	return newObserver(c.Metrics, c.Logger).wrap(secured(cleanPaths(mux))), nil
}

var (
	errNoRoute  = problem.New(problem.NotFound, "no_such_path", "there is nothing at this path; /openapi.json lists what there is")
	errNoMethod = problem.New(problem.Malformed, "method_not_allowed", "this path does not know this method; Allow lists those it knows")
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
			WriteProblem(w, r, errNoRoute)
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		body, _ := answer(errNoMethod)
		body.Status, body.Title = http.StatusMethodNotAllowed, http.StatusText(http.StatusMethodNotAllowed)
		writeProblem(w, body)
	}
}

// cleanPaths refuses a path that has "//", "." or ".." in it, which http.ServeMux would
// redirect, with a page.
func cleanPaths(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := r.URL.EscapedPath()
		if clean := path.Clean(got); got != clean && got != clean+"/" {
			r.Pattern = "/" // as of all that is not there
			WriteProblem(w, r, errNoRoute)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// secured sets what every answer carries: nothing here is a page, may be framed,
// or be taken for another type.
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

// describeRoutes adds the endpoints with handlers of their own to the description.
func describeRoutes(o *Operations) {
	const jsonType, noBody = "application/json", ""
	open := func(method, path, tag, id, summary string, errors ...int) huma.Operation {
		return huma.Operation{
			OperationID: id, Method: method, Path: path, Tags: []string{tag}, Summary: summary,
			Errors: slices.Concat(ourErrors, errors),
		}
	}
	bearer := func(op huma.Operation) huma.Operation {
		op.Security = []map[string][]string{{"bearer": {}}}
		op.Errors = append(op.Errors, bearerErrors...)
		return op
	}
	o.describe(open(http.MethodPost, "/api/login", "tokens", "login", "Log in by password", http.StatusUnauthorized, http.StatusForbidden), LoginRequest{}, http.StatusOK, Grant{}, jsonType)
	o.describe(open(http.MethodPost, "/api/renew", "tokens", "renew", "Spend a refresh token for a new pair",
		http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests), RenewRequest{}, http.StatusOK, Grant{}, jsonType)
	o.describe(bearer(open(http.MethodPost, "/api/logout", "tokens", "logout", "End the session and take back its tokens")), nil, http.StatusNoContent, nil, noBody)
	o.describe(bearer(open(http.MethodPost, "/auth/logout", "tokens", "auth-logout", "The same as /api/logout")), nil, http.StatusNoContent, nil, noBody)
	for _, method := range openAPIMethods {
		id := "verify"
		if method != http.MethodGet {
			id += "-" + strings.ToLower(method)
		}
		o.describe(bearer(open(method, "/api/verify", "tokens", id, "The claims of a valid token, in the body and as X-Auth-* headers; any method, for forward-auth")), nil, http.StatusOK, map[string]any{}, jsonType)
	}
	o.describe(bearer(open(http.MethodPost, "/api/revocations", "revocations", "revoke", "Take back a token, a session, a user's tokens or a signing key",
		http.StatusForbidden, http.StatusNotFound)), RevocationRequest{}, http.StatusOK, Revocation{}, jsonType)
	feed := open(http.MethodGet, "/api/revocations", "revocations", "revocations", "The feed of revocations: a page as JSON, or text/event-stream",
		http.StatusBadRequest, http.StatusForbidden)
	feed.Parameters = []*huma.Param{
		{Name: "after", In: "query", Description: "the last sequence number that is known", Schema: between(0, math.MaxInt64)},
		{Name: "limit", In: "query", Description: "how many entries a page has", Schema: between(1, feedMaxPage)},
		{Name: "wait", In: "query", Description: "for how many seconds the page may be held back until there is something to tell", Schema: between(0, feedMaxWait.Seconds())},
		{Name: "Last-Event-ID", In: "header", Description: "the id of the last event that was received, to resume a stream", Schema: &huma.Schema{Type: "string"}},
		nonceHeader,
	}
	page := o.describe(feed, nil, http.StatusOK, revoked.Page{}, jsonType)["200"]
	page.Content["text/event-stream"] = &huma.MediaType{Schema: &huma.Schema{Type: "string", Description: "events snapshot or resume, revocation, head"}}
	for _, keys := range []huma.Operation{
		open(http.MethodGet, "/api/pkeys", "keys", "public-keys", "The merged key set of all replicas (RFC 7517)", http.StatusBadRequest, http.StatusForbidden),
		open(http.MethodGet, "/.well-known/jwks.json", "keys", "jwks", "The same as /api/pkeys", http.StatusBadRequest, http.StatusForbidden),
	} {
		keys.Parameters = []*huma.Param{
			{Name: "local", In: "query", Description: "true: the keys of this replica alone", Schema: &huma.Schema{Type: "boolean"}},
			{Name: "If-None-Match", In: "header", Description: "the ETag of the set that is known", Schema: &huma.Schema{Type: "string"}},
			nonceHeader,
		}
		o.describe(keys, nil, http.StatusOK, JWKS{}, keySetType)["304"] = o.response(http.StatusNotModified, nil, noBody)
	}
	o.describe(open(http.MethodGet, "/health", "probes", "health", "Whether every storage backend answers"), nil, http.StatusOK, HealthReport{}, jsonType)["503"] =
		o.response(http.StatusServiceUnavailable, HealthReport{}, jsonType)
	// These two are answered while the node starts, too.
	live := open(http.MethodGet, "/livez", "probes", "livez", "Whether the process is alive")
	ready := open(http.MethodGet, "/readyz", "probes", "readyz", "Whether this replica may take traffic")
	live.Errors, ready.Errors = []int{http.StatusInternalServerError}, []int{http.StatusInternalServerError}
	o.describe(live, nil, http.StatusOK, Liveness{}, jsonType)
	o.describe(ready, nil, http.StatusOK, Readiness{}, jsonType)["503"] =
		o.response(http.StatusServiceUnavailable, Readiness{}, jsonType)
	o.describe(open(http.MethodGet, "/metrics", "probes", "metrics", "Prometheus metrics"), nil, http.StatusOK, nil, "text/plain")
	o.describe(open(http.MethodGet, "/openapi.json", "probes", "openapi", "This document"), nil, http.StatusOK, map[string]any{}, jsonType)
}

// openAPIMethods are those that OpenAPI 3.1 can describe.
var openAPIMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace,
}

// nonceHeader is what a peer asks with (package cluster).
var nonceHeader = &huma.Param{
	Name: cluster.HeaderNonce, In: "header", Description: "asks a replica of a cluster to authenticate its answer",
	Schema: &huma.Schema{Type: "string", MinLength: new(16), MaxLength: new(128)},
}

func between(least, most float64) *huma.Schema {
	return &huma.Schema{Type: "integer", Minimum: &least, Maximum: &most}
}

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
