package page

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/state/memstate"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// sessions are those whose cookie is "good", which is user-1's.
type sessions struct {
	err   error
	asked *atomic.Int64
}

func (s sessions) Recognise(_ context.Context, cookie string) (*login.Browser, error) {
	if s.asked != nil {
		s.asked.Add(1)
	}
	switch {
	case s.err != nil:
		return nil, s.err
	case cookie != "good":
		return nil, login.ErrNoBrowser
	}
	return &login.Browser{Token: &accesstoken.Token{Issuer: "https://issuer.test", Audience: []string{"https://issuer.test"}, Subject: "user-1", SessionID: "session-1"}}, nil
}

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))

func (s sessions) Watch(ctx context.Context, cookie string) (*login.Browser, error) {
	return s.Recognise(ctx, cookie)
}

func newKit(t *testing.T, change func(*Config)) *Kit {
	t.Helper()
	c := Config{Login: sessions{}, Now: time.Now, Logger: discard}
	if change != nil {
		change(&c)
	}
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A call is one request of a browser at http://localhost.
type call struct {
	method, path, body string
	cookie             string // of the session
	header             map[string]string
}

func (k *Kit) answer(c call) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	k.Mount(mux)
	if c.method == "" {
		c.method = "GET"
	}
	r := httptest.NewRequest(c.method, "http://localhost"+c.path, strings.NewReader(c.body))
	r.RemoteAddr = "192.0.2.7:1234"
	if c.body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	if c.cookie != "" {
		r.AddCookie(&http.Cookie{Name: "watchword", Value: c.cookie})
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	return w
}

func hello(v *Visit) error {
	who := "nobody"
	if v.By != nil {
		who = v.By.Token.Subject
	}
	return v.Show(http.StatusOK, Layout{Title: "Hello " + who, Content: Empty("nothing", "here")})
}

func TestWhoMayOpenAPage(t *testing.T) {
	broken := problem.New(problem.Unavailable, "storage_unavailable", "the storage does not answer at the moment").After(3 * time.Second)
	for _, c := range []struct {
		name, cookie string
		who          Who
		err          error
		status       int
		says         string
	}{
		{"a session", "good", SignedIn, nil, 200, "Hello user-1"},
		{"a session on a page for anybody", "good", Anybody, nil, 200, "Hello user-1"},
		{"no cookie", "", SignedIn, nil, 401, "not signed in"},
		{"no cookie on a page for anybody", "", Anybody, nil, 200, "Hello nobody"},
		{"a cookie of no session", "bad", SignedIn, nil, 401, "not signed in"},
		{"a cookie of no session on a page for anybody", "bad", Anybody, nil, 200, "Hello nobody"},
		{"nobody knows", "good", SignedIn, broken, 503, "Try again in 3 seconds"},
		{"nobody knows, on a page for anybody", "good", Anybody, broken, 503, "Try again in 3 seconds"},
		{"nobody needs to know", "", Anybody, broken, 200, "Hello nobody"},
	} {
		k := newKit(t, func(config *Config) { config.Login = sessions{err: c.err} })
		k.Get("/account", c.who, hello)
		w := k.answer(call{path: "/account", cookie: c.cookie})
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
		}
		if retry := w.Header().Get("Retry-After"); (retry == "3") != (c.status == 503) {
			t.Errorf("%s: Retry-After %q", c.name, retry)
		}
	}
}

func TestEveryPageIsProtected(t *testing.T) {
	k := newKit(t, nil)
	k.Get("/account", Anybody, hello)
	for _, path := range []string{"/account", "/account/none"} {
		w := k.answer(call{path: path})
		for name, want := range map[string]string{
			"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
			"Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8", "Content-Encoding": "",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s: %q", path, name, got)
			}
		}
	}
	for _, forbidden := range []string{"unsafe-inline", "unsafe-eval", "*", "http:"} {
		if strings.Contains(policy, forbidden) {
			t.Errorf("the policy allows %s", forbidden)
		}
	}
}

// A page of another site cannot have its visitors send a form.
func TestFormsOfOtherSites(t *testing.T) {
	k := newKit(t, nil)
	done := 0
	k.Post("/account/password", SignedIn, func(v *Visit) error { done++; return v.Redirect("/account") })
	for _, c := range []struct {
		header map[string]string
		status int
	}{
		{nil, 303}, // no browser
		{map[string]string{"Sec-Fetch-Site": "same-origin"}, 303},
		{map[string]string{"Sec-Fetch-Site": "cross-site"}, 403},
		{map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{map[string]string{"Origin": "http://localhost"}, 303},
		{map[string]string{"Origin": "http://evil.test"}, 403},
		{map[string]string{"Origin": "null"}, 403},
	} {
		before := done
		w := k.answer(call{method: "POST", path: "/account/password", body: "a=b", cookie: "good", header: c.header})
		if w.Code != c.status || (done > before) != (c.status == 303) {
			t.Errorf("%v: %d, done %v", c.header, w.Code, done > before)
		}
	}
}

func TestMethodsAndUnknownPages(t *testing.T) {
	k := newKit(t, nil)
	k.Get("/account", Anybody, hello)
	k.Get("/account/{id}", Anybody, hello)
	k.Post("/account/{id}/end", Anybody, hello)
	k.Get("/.well-known/change-password", Anybody, func(v *Visit) error { return v.Redirect("/account/password") })
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"HEAD", "/account", 200, ""},
		{"POST", "/account", 405, "GET, HEAD"},
		{"DELETE", "/account/x", 405, "GET, HEAD"},
		{"GET", "/account/x/end", 405, "POST"},
		{"GET", "/account/x/y/z", 404, ""},
		{"POST", "/account/x/y/z", 404, ""},
		{"GET", "/.well-known/change-password", 303, ""},
		{"POST", "/.well-known/change-password", 405, "GET, HEAD"},
	} {
		w := k.answer(call{method: c.method, path: c.path})
		if w.Code != c.status || w.Header().Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, Allow %q", c.method, c.path, w.Code, w.Header().Get("Allow"))
		}
	}
	mux := http.NewServeMux()
	k.Mount(mux)
	if _, pattern := mux.Handler(httptest.NewRequest("GET", "http://localhost/.well-known/other", nil)); pattern != "" {
		t.Errorf("the kit takes another path of /.well-known: %s", pattern)
	}
}

func TestHooks(t *testing.T) {
	k := newKit(t, nil)
	again := problem.New(problem.Unauthenticated, "reauthentication_required", "authenticate again").Within(time.Minute)
	k.Get("/account", SignedIn, hello)
	k.Post("/account/delete", SignedIn, func(*Visit) error { return again })
	k.OnNoSession(func(v *Visit) error {
		return v.Show(http.StatusUnauthorized, Layout{Title: "Sign in for " + v.Request.URL.Path, Content: Empty("kept: "+v.Field("note"), "")})
	})
	k.OnReauthenticate(func(v *Visit, err error) error {
		return v.Show(http.StatusUnauthorized, Layout{Title: "Again within " + problem.From(err).MaxAge.String(), Content: Empty("kept: "+v.Field("note"), "")})
	})
	if w := k.answer(call{method: "POST", path: "/account/delete", body: "note=typed"}); w.Code != 401 || !strings.Contains(w.Body.String(), "Sign in for /account/delete") || !strings.Contains(w.Body.String(), "kept: typed") {
		t.Errorf("without a session: %d %s", w.Code, w.Body)
	}
	if w := k.answer(call{method: "POST", path: "/account/delete", body: "note=typed", cookie: "good"}); w.Code != 401 || !strings.Contains(w.Body.String(), "Again within 1m0s") || !strings.Contains(w.Body.String(), "kept: typed") {
		t.Errorf("an authentication that is too old: %d %s", w.Code, w.Body)
	}
	// What htmx asks for every few seconds has the page load itself again.
	w := k.answer(call{path: "/account", header: map[string]string{"HX-Request": "true"}})
	if w.Code != 401 || w.Header().Get("HX-Refresh") != "true" || strings.Contains(w.Body.String(), "Sign in for") {
		t.Errorf("htmx without a session: %d %v %s", w.Code, w.Header(), w.Body)
	}
}

func TestScriptsAreAnsweredInJSON(t *testing.T) {
	k := newKit(t, nil)
	k.OnNoSession(hello)
	k.PostJSON("/account/passkeys", SignedIn, func(v *Visit) error {
		var in struct {
			Name string `json:"name"`
		}
		if err := v.ReadJSON(&in); err != nil {
			return err
		}
		return v.JSON(http.StatusOK, map[string]string{"name": in.Name})
	})
	post := func(cookie, mediaType, body string) *httptest.ResponseRecorder {
		return k.answer(call{method: "POST", path: "/account/passkeys", body: body, cookie: cookie, header: map[string]string{"Content-Type": mediaType}})
	}
	for _, c := range []struct {
		cookie, mediaType, body string
		status                  int
		says                    string
	}{
		{"good", "application/json", `{"name":"key"}`, 200, `{"name":"key"}`},
		{"good", "application/json; charset=utf-8", `{"name":"key"}`, 200, `{"name":"key"}`},
		{"bad", "application/json", `{"name":"key"}`, 401, `"code":"session_ended"`},
		{"good", "application/json", `{"name":"key","name":"two"}`, 400, `"status":400`},
		{"good", "text/plain", `{"name":"key"}`, 400, `"code":"malformed_form"`},
		{"good", "application/x-www-form-urlencoded", `{"name":"key"}`, 400, `"code":"malformed_form"`},
	} {
		w := post(c.cookie, c.mediaType, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%+v: %d %s %s", c, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
	}
}

// The requests of who is signed in are counted, as those with an access token are: by address
// before anything is looked up, for the user when their session is known to live.
func TestRequestsAreCounted(t *testing.T) {
	rate := func(n int) state.Rate { return state.Rate{Burst: n, Period: time.Hour} }
	var asked atomic.Int64
	kit := func(policies map[limit.Class]limit.Policy) *Kit {
		k := newKit(t, func(c *Config) {
			c.Login = sessions{asked: &asked}
			c.Limits = limit.New(limit.Config{State: memstate.New(time.Now), Now: time.Now, Logger: discard, Registerer: prometheus.NewRegistry(), Replicas: func() int { return 1 }, Rules: limit.Rules{Policies: policies}})
			c.Budget = httpkit.NewBudget(5, 5, prometheus.NewRegistry(), discard)
		})
		k.Get("/account", SignedIn, hello)
		k.Get("/admin/users", SignedIn, hello)
		k.Post("/admin/users", SignedIn, hello)
		k.Post("/account/name", SignedIn, hello)
		return k
	}
	get, account := call{path: "/account", cookie: "good"}, call{method: "POST", path: "/account/name", body: "a=b", cookie: "good"}
	look, change := call{path: "/admin/users", cookie: "good"}, call{method: "POST", path: "/admin/users", body: "a=b", cookie: "good"}
	forged := call{path: "/account", cookie: "bad"}
	for _, c := range []struct {
		name     string
		policies map[limit.Class]limit.Policy
		calls    []call
		status   []int
	}{
		{"pages, by user", map[limit.Class]limit.Policy{limit.API: {PerAccount: rate(3)}}, []call{get, look, account, get, change}, []int{200, 200, 200, 429, 200}},
		{"changes of administration, by user", map[limit.Class]limit.Policy{limit.Admin: {PerAccount: rate(1)}}, []call{look, change, change, look, account}, []int{200, 200, 429, 200, 200}},
		{"by address", map[limit.Class]limit.Policy{limit.API: {PerAddress: rate(2)}}, []call{forged, forged, forged, get}, []int{401, 401, 429, 429}},
		{"forged cookies use up no user's rate", map[limit.Class]limit.Policy{limit.API: {PerAccount: rate(1)}}, []call{forged, forged, get, get}, []int{401, 401, 200, 429}},
		{"without a cookie nothing is counted", map[limit.Class]limit.Policy{limit.API: {PerAddress: rate(1)}}, []call{{path: "/account"}, {path: "/account"}}, []int{401, 401}},
	} {
		k := kit(c.policies)
		for i, one := range c.calls {
			before := asked.Load()
			w := k.answer(one)
			if w.Code != c.status[i] {
				t.Errorf("%s: request %d: %d", c.name, i, w.Code)
			}
			if w.Code == 429 && w.Header().Get("Retry-After") == "" {
				t.Errorf("%s: request %d: no Retry-After", c.name, i)
			}
			if w.Code == 429 && c.policies[limit.API].PerAddress.Burst > 0 && asked.Load() != before {
				t.Errorf("%s: request %d: the session of a request that is refused was looked up", c.name, i)
			}
		}
	}
	k := kit(map[limit.Class]limit.Policy{limit.API: {PerAccount: rate(3)}})
	if w := k.answer(get); !strings.Contains(w.Header().Get("RateLimit"), ";r=2") {
		t.Errorf("RateLimit: %q", w.Header().Get("RateLimit"))
	}
}

// A user's requests beyond the budget are refused, and a forged cookie takes no place of theirs.
func TestRequestsAreBounded(t *testing.T) {
	k := newKit(t, func(c *Config) { c.Budget = httpkit.NewBudget(1, 100, prometheus.NewRegistry(), discard) })
	entered, free := make(chan struct{}), make(chan struct{})
	k.Get("/account", SignedIn, func(v *Visit) error {
		entered <- struct{}{}
		<-free
		return hello(v)
	})
	k.Get("/account/other", SignedIn, hello)
	served := make(chan int)
	go func() { served <- k.answer(call{path: "/account", cookie: "good"}).Code }()
	<-entered
	if w := k.answer(call{path: "/account/other", cookie: "good"}); w.Code != 429 {
		t.Errorf("a second request at once: %d", w.Code)
	}
	if w := k.answer(call{path: "/account/other", cookie: "bad"}); w.Code != 401 {
		t.Errorf("a forged cookie: %d", w.Code)
	}
	close(free)
	if code := <-served; code != 200 {
		t.Errorf("the first request: %d", code)
	}
	if w := k.answer(call{path: "/account/other", cookie: "good"}); w.Code != 200 {
		t.Errorf("afterwards: %d", w.Code)
	}
}

func TestErrorsAreToldInTheVisitorsLanguage(t *testing.T) {
	k := newKit(t, nil)
	k.Get("/account", Anybody, func(v *Visit) error {
		return problem.New(problem.Conflict, v.Field("code"), "the <b>name</b> is taken").Because(io.ErrUnexpectedEOF)
	})
	get := func(code, lang string) string {
		w := k.answer(call{path: "/account?code=" + code, header: map[string]string{"Accept-Language": lang}})
		if w.Code != http.StatusConflict {
			t.Errorf("%s: %d", code, w.Code)
		}
		return w.Body.String()
	}
	if body := get("cross_origin", "de-CH"); !strings.Contains(body, "Das Formular wurde von einer Seite einer anderen Website") || !strings.Contains(body, `lang="de"`) {
		t.Errorf("German: %s", body)
	}
	body := get("unknown_code", "fr")
	if !strings.Contains(body, "The &lt;b&gt;name&lt;/b&gt; is taken.") || strings.Contains(body, "EOF") {
		t.Errorf("a detail of its own: %s", body)
	}
	k.Get("/account/bug", Anybody, func(*Visit) error { return io.ErrUnexpectedEOF })
	if w := k.answer(call{path: "/account/bug"}); w.Code != 500 || strings.Contains(w.Body.String(), "EOF") {
		t.Errorf("a bug: %d %s", w.Code, w.Body)
	}
}

// Pages that are in English are so for everybody, but for the sign-in in place of one of them.
func TestEnglishPages(t *testing.T) {
	k := newKit(t, nil)
	k.InEnglish("/admin")
	inWords := func(v *Visit) error {
		return v.Show(http.StatusOK, Layout{Title: v.Duration(time.Hour), Content: Empty(v.Number(1000), "")})
	}
	for _, path := range []string{"/account", "/admin", "/admin/users", "/administration"} {
		k.Get(path, SignedIn, inWords)
	}
	k.Post("/admin", SignedIn, func(*Visit) error {
		return problem.New(problem.Unauthenticated, "reauthentication_required", "authenticate again")
	})
	k.OnNoSession(inWords)
	k.OnReauthenticate(func(v *Visit, _ error) error { return inWords(v) })
	german, english := []string{`lang="de"`, "60 Minuten", "1.000"}, []string{`lang="en"`, "60 minutes", "1,000"}
	for _, c := range []struct {
		call
		want []string
	}{
		{call{path: "/account", cookie: "good"}, german},
		{call{path: "/administration", cookie: "good"}, german},
		{call{path: "/admin", cookie: "good"}, english},
		{call{path: "/admin/users?ui_locales=de", cookie: "good"}, english},
		{call{path: "/admin"}, german},                                              // the sign-in
		{call{method: "POST", path: "/admin", body: "a=b", cookie: "good"}, german}, // the step-up
	} {
		c.header = map[string]string{"Accept-Language": "de"}
		body := k.answer(c.call).Body.String()
		for _, text := range c.want {
			if !strings.Contains(body, text) {
				t.Errorf("%s %s: no %q in %s", c.method, c.path, text, body)
			}
		}
	}
}

// A page of an error has the navigation around it that its visit has.
func TestErrorsInAFrame(t *testing.T) {
	k := newKit(t, nil)
	k.Get("/admin/framed", SignedIn, func(v *Visit) error {
		v.Frame([]NavItem{{"/admin", "Overview"}}, "ada")
		return problem.New(problem.NotFound, "gone", "it is gone")
	})
	k.Get("/admin/plain", SignedIn, func(*Visit) error { return problem.New(problem.NotFound, "gone", "it is gone") })
	framed := k.answer(call{path: "/admin/framed", cookie: "good"}).Body.String()
	for _, text := range []string{"It is gone.", `class="side"`, `href="/admin"`, "ada", "/signout"} {
		if !strings.Contains(framed, text) {
			t.Errorf("there is no %s in %s", text, framed)
		}
	}
	checkHTML(t, "an error", framed)
	if plain := k.answer(call{path: "/admin/plain", cookie: "good"}).Body.String(); !strings.Contains(plain, "It is gone.") || strings.Contains(plain, `class="side"`) {
		t.Errorf("without a frame: %s", plain)
	}
}

// A page is compressed if it says that nothing in it is secret, and no other one.
func TestCompress(t *testing.T) {
	k := newKit(t, nil)
	show := func(v *Visit) error {
		return v.Show(http.StatusOK, Layout{Title: "Much of the same", Content: Empty(strings.Repeat("much ", 500), "")})
	}
	k.Get("/account/secret", Anybody, show)
	k.Get("/account/open", Anybody, func(v *Visit) error {
		v.Compress()
		return show(v)
	})
	for path, want := range map[string]string{"/account/secret": "", "/account/open": "gzip"} {
		a := k.answer(call{path: path, header: map[string]string{"Accept-Encoding": "gzip"}})
		if got := a.Header().Get("Content-Encoding"); got != want || a.Code != http.StatusOK || (want != "") != (a.Header().Get("Vary") == "Accept-Encoding") {
			t.Errorf("%s: %q, %v", path, got, a.Header())
		}
	}
	a := k.answer(call{path: "/account/open"})
	if a.Header().Get("Content-Encoding") != "" || !strings.Contains(a.Body.String(), "Much of the same") {
		t.Errorf("for a browser that does not accept it: %v", a.Header())
	}
}
