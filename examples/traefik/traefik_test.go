// Package traefik tests that a proxy that does what Traefik's documentation says, with this
// configuration, lets no request pass without a good token, and no X-Auth-* header of a client.
// The distribution has no Traefik.
package traefik

import (
	_ "embed"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/test/forwardauth"
)

var (
	//go:embed traefik.yaml
	static string
	//go:embed dynamic.yaml
	dynamic string
)

// configuration is what a proxy needs of dynamic.yaml.
type configuration struct {
	HTTP struct {
		Routers map[string]struct {
			Rule        string
			Priority    int
			Middlewares []string
			Service     string
		}
		Middlewares map[string]struct{ ForwardAuth forwardAuth }
		Services    map[string]struct {
			LoadBalancer struct{ Servers []struct{ URL string } }
		}
	}
}

type forwardAuth struct {
	Address                  string
	AuthResponseHeaders      []string
	AuthResponseHeadersRegex string
	AuthRequestHeaders       []string
}

func TestTraefik(t *testing.T) {
	forwardauth.Run(t, func(t *testing.T, auth, app string) string {
		return start(t, strings.NewReplacer("127.0.0.1:8080", auth, "127.0.0.1:9000", app).Replace(dynamic))
	})
}

func TestTraefikRefusesWhatIsTooMuch(t *testing.T) {
	forwardauth.RunLimited(t, func(t *testing.T, auth, app string) string {
		return start(t, strings.NewReplacer("127.0.0.1:8080", auth, "127.0.0.1:9000", app).Replace(dynamic))
	})
}

// The two files name each other.
func TestStaticConfiguration(t *testing.T) {
	var c struct {
		EntryPoints map[string]struct{ Address string }
		Providers   struct{ File struct{ Filename string } }
	}
	decode(t, static, &c)
	if len(c.EntryPoints) != 1 || !strings.HasSuffix(c.Providers.File.Filename, "/dynamic.yaml") {
		t.Errorf("%+v", c)
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(strings.NewReplacer( // the decoder knows fields in lower case
		"entryPoints:", "entrypoints:", "forwardAuth:", "forwardauth:", "loadBalancer:", "loadbalancer:",
		"authResponseHeadersRegex:", "authresponseheadersregex:", "authResponseHeaders:", "authresponseheaders:",
		"authRequestHeaders:", "authrequestheaders:").Replace(text)), into); err != nil {
		t.Fatal(err)
	}
}

// start starts a proxy that does as the documentation of Traefik 3 says.
func start(t *testing.T, text string) string {
	t.Helper()
	var c configuration
	decode(t, text, &c)
	handlers := map[string]http.Handler{}
	for name, router := range c.HTTP.Routers {
		servers := c.HTTP.Services[router.Service].LoadBalancer.Servers
		if len(servers) != 1 {
			t.Fatalf("the service of %s has %d servers", name, len(servers))
		}
		target, err := url.Parse(servers[0].URL)
		if err != nil {
			t.Fatal(err)
		}
		var h http.Handler = httputil.NewSingleHostReverseProxy(target)
		for _, m := range slices.Backward(router.Middlewares) {
			middleware, known := c.HTTP.Middlewares[m]
			if !known {
				t.Fatalf("%s has no middleware %s", name, m)
			}
			h = middleware.ForwardAuth.before(t, h)
		}
		handlers[name] = h
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		removeConnectionHeaders(r.Header)
		first := ""
		for name, router := range c.HTTP.Routers {
			if matches(t, router.Rule, r) && (first == "" || router.Priority > c.HTTP.Routers[first].Priority) {
				first = name
			}
		}
		if first == "" {
			http.NotFound(w, r)
			return
		}
		handlers[first].ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// removeConnectionHeaders is what Traefik does first (since 2.4.13): no header that a middleware
// sets can be removed by the client's Connection.
func removeConnectionHeaders(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	h.Del("Connection")
}

var matcher = regexp.MustCompile("^(!?)(Method|PathPrefix|HeaderRegexp)\\(`([^`]*)`(?:, `([^`]*)`)?\\)$")

// matches reports whether a request matches a rule: matchers joined by &&.
func matches(t *testing.T, rule string, r *http.Request) bool {
	for part := range strings.SplitSeq(rule, " && ") {
		m := matcher.FindStringSubmatch(part)
		if m == nil {
			t.Errorf("no matcher: %s", part)
			return false
		}
		var matched bool
		switch m[2] {
		case "Method":
			matched = r.Method == m[3]
		case "PathPrefix":
			matched = strings.HasPrefix(r.URL.Path, m[3])
		case "HeaderRegexp":
			matched = slices.ContainsFunc(r.Header.Values(m[3]), regexp.MustCompile(m[4]).MatchString)
		}
		if matched == (m[1] == "!") {
			return false
		}
	}
	return true
}

// before asks by GET. An answer of 2xx lets the request pass: of its headers those that match the
// expression are removed, and those of the answer set. Any other answer is the client's.
func (f forwardAuth) before(t *testing.T, next http.Handler) http.Handler {
	expression := regexp.MustCompile(f.AuthResponseHeadersRegex)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ask, err := http.NewRequestWithContext(r.Context(), http.MethodGet, f.Address, nil)
		if err != nil {
			t.Error(err)
			return
		}
		for name, values := range r.Header {
			if len(f.AuthRequestHeaders) == 0 || slices.ContainsFunc(f.AuthRequestHeaders, func(h string) bool { return strings.EqualFold(h, name) }) {
				ask.Header[name] = values
			}
		}
		answer, err := http.DefaultTransport.RoundTrip(ask)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		defer answer.Body.Close()
		if answer.StatusCode/100 != 2 {
			maps.Copy(w.Header(), answer.Header)
			w.WriteHeader(answer.StatusCode)
			_, _ = io.Copy(w, answer.Body)
			return
		}
		for _, name := range f.AuthResponseHeaders {
			r.Header.Del(name)
			if values := answer.Header.Values(name); len(values) > 0 {
				r.Header[http.CanonicalHeaderKey(name)] = values
			}
		}
		if f.AuthResponseHeadersRegex != "" {
			for name := range r.Header {
				if expression.MatchString(name) {
					r.Header.Del(name)
				}
			}
			for name, values := range answer.Header {
				if expression.MatchString(name) {
					r.Header[name] = values
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}
