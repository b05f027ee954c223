package page

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func record(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestSafeReturn(t *testing.T) {
	for _, good := range []string{"/account", "/account/sessions", "/admin", "/admin/users?q=a%20b&after=x", "/admin/users/01h8"} {
		if got := SafeReturn(good); got != good {
			t.Errorf("%q becomes %q", good, got)
		}
	}
	for _, bad := range []string{
		"", "/", "account", "/signin", "/accounts", "/administrator", "/api/me", "//evil.test/account", "///evil.test/account", "/\\evil.test/account",
		"\\\\evil.test/account", "http://evil.test/account", "https:/account", "javascript:alert(1)", "/account\\..\\..", "/account/../../x", "/account/..//evil.test",
		"/account/%2e%2e/x", "/account/%2f%2fevil.test", "/account%2f..", "/%2faccount", "/account/%5cevil", "/account%00", "/account\n", "\t/account", " /account",
		"/account /x", "/account#x", "/account//x", "/account/", "/account/./x", "@evil.test/account", "/account\u2028", "/account?" + strings.Repeat("x", maxReturn),
	} {
		if got := SafeReturn(bad); got != home {
			t.Errorf("%q becomes %q", bad, got)
		}
	}
}

func FuzzSafeReturn(f *testing.F) {
	for _, seed := range []string{"/account", "/admin/users?q=a", "//evil.test", "/account/%2e%2e/", "/\\evil", "/account?x=//evil", "/account;x"} {
		f.Add(seed)
	}
	base, _ := url.Parse("https://id.example.com/signin")
	f.Fuzz(func(t *testing.T, to string) {
		got := SafeReturn(to)
		if got != to && got != home {
			t.Fatalf("%q becomes %q", to, got)
		}
		// A browser reads "\" as "/", and leaves out tabs and line ends.
		asBrowser := strings.NewReplacer("\\", "/", "\t", "", "\n", "", "\r", "").Replace(strings.TrimSpace(got))
		u, err := base.Parse(asBrowser)
		if err != nil {
			t.Fatalf("%q becomes %q: %v", to, got, err)
		}
		if u.Scheme != "https" || u.Host != "id.example.com" || u.User != nil {
			t.Fatalf("%q leads to %v", to, u)
		}
		if p := u.Path; p != "/account" && p != "/admin" && !strings.HasPrefix(p, "/account/") && !strings.HasPrefix(p, "/admin/") {
			t.Fatalf("%q leads to %v", to, u)
		}
	})
}

func TestRedirectsStayHere(t *testing.T) {
	k := newKit(t, nil)
	k.Get("/account", Anybody, func(v *Visit) error { return v.Redirect(v.Field("to")) })
	for to, status := range map[string]int{"/signin?return=/account": 303, "//evil.test": 500, "https://evil.test": 500, "/\\evil.test": 500, "/a\nb": 500, "": 500} {
		w := k.answer(call{path: "/account?to=" + url.QueryEscape(to)})
		if w.Code != status || (w.Header().Get("Location") != "") != (status == 303) {
			t.Errorf("%q: %d %q", to, w.Code, w.Header().Get("Location"))
		}
	}
}
