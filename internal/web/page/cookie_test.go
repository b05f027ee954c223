package page

import (
	"crypto/tls"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// visitTo returns a visit to a page, as the browser asks for it.
func visitTo(k *Kit, host string, change func(*http.Request)) (*Visit, *httptest.ResponseRecorder) {
	r := httptest.NewRequest("GET", "http://"+host+"/account", nil)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	return k.visit(w, r), w
}

func TestCookiesArePlainOnLoopbackAlone(t *testing.T) {
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for _, c := range []struct {
		host, public string
		change       func(*http.Request)
		plain        bool
	}{
		{host: "localhost", plain: true},
		{host: "LOCALHOST:8080", plain: true},
		{host: "watchword.localhost:8080", plain: true},
		{host: "127.0.0.1:8080", plain: true},
		{host: "127.9.9.9", plain: true},
		{host: "[::1]:8080", plain: true},
		{host: "[::1]", plain: true},
		{host: "localhost", public: "http://localhost:8080", plain: true},
		{host: "localhost", public: "https://id.example.com"},
		{host: "localhost", public: "HTTPS://id.example.com"},
		{host: "localhost", change: header("X-Forwarded-Proto", "http")},
		{host: "localhost", change: header("Forwarded", "proto=http")},
		{host: "localhost", change: func(r *http.Request) { r.TLS = &tls.ConnectionState{} }},
		{host: "localhost.example.com"},
		{host: "notlocalhost"},
		{host: "127.0.0.1.example.com"},
		{host: "192.0.2.1"},
		{host: "id.example.com"},
	} {
		v, w := visitTo(newKit(t, func(config *Config) { config.PublicURL = c.public }), c.host, c.change)
		v.SetSession("secret")
		got := w.Header().Get("Set-Cookie")
		want := "__Host-watchword=secret; Path=/; HttpOnly; Secure; SameSite=Lax"
		if c.plain {
			want = "watchword=secret; Path=/; HttpOnly; SameSite=Lax"
		}
		if got != want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// The cookie of loopback counts nowhere else, and one of several counts never.
func TestWhichCookieCounts(t *testing.T) {
	k := newKit(t, nil)
	with := func(cookies ...string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Cookie", strings.Join(cookies, "; ")) }
	}
	for _, c := range []struct {
		host, want string
		change     func(*http.Request)
	}{
		{"localhost", "a", with("watchword=a")},
		{"localhost", "", with("__Host-watchword=a")},
		{"localhost", "", with("watchword=a", "watchword=b")},
		{"id.example.com", "", with("watchword=a")},
		{"id.example.com", "b", with("watchword=a", "__Host-watchword=b")},
		{"id.example.com", "", nil},
	} {
		if v, _ := visitTo(k, c.host, c.change); v.Cookie(SessionCookie) != c.want {
			t.Errorf("%+v: %q", c, v.Cookie(SessionCookie))
		}
	}
	v, w := visitTo(k, "localhost", nil)
	v.SetCookie(DeviceCookie, "d", 2*time.Hour)
	v.ClearSession()
	if got := strings.Join(w.Header()["Set-Cookie"], "|"); got != "watchword-device=d; Path=/; Max-Age=7200; HttpOnly; SameSite=Lax|watchword=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax" {
		t.Error(got)
	}
}

func TestFlash(t *testing.T) {
	k := newKit(t, nil)
	k.Get("/account", Anybody, hello)
	k.Post("/account/save", Anybody, func(v *Visit) error {
		v.Flash(Success, v.Field("text"))
		return v.Redirect("/account")
	})
	show := func(cookie string) *httptest.ResponseRecorder {
		return k.answer(call{path: "/account", header: map[string]string{"Cookie": cookie}})
	}
	w := k.answer(call{method: "POST", path: "/account/save", body: "text=%3Cscript%3Ealert(1)%3C%2Fscript%3E+saved"})
	set := w.Result().Cookies()
	if w.Code != 303 || w.Header().Get("Location") != "/account" || len(set) != 1 || set[0].MaxAge != 60 {
		t.Fatalf("%d %v", w.Code, set)
	}
	w = show(set[0].Name + "=" + set[0].Value)
	if !strings.Contains(w.Body.String(), "&lt;script&gt;alert(1)&lt;/script&gt; saved") || strings.Contains(w.Body.String(), "<script>alert") {
		t.Errorf("the next page: %s", w.Body)
	}
	if forgotten := w.Result().Cookies(); len(forgotten) != 1 || forgotten[0].MaxAge != -1 {
		t.Errorf("the message comes again: %v", forgotten)
	}
	if w = show(""); strings.Contains(w.Body.String(), "saved") || w.Header().Get("Set-Cookie") != "" {
		t.Errorf("the page after that: %v", w.Header())
	}
	b64 := base64.RawURLEncoding.EncodeToString
	for _, value := range []string{"", "!", b64([]byte("none")), b64([]byte("onclick:text")), b64([]byte("success:\xff")), b64([]byte("success:" + strings.Repeat("x", maxFlash+1)))} {
		w := show("watchword-flash=" + value)
		if w.Code != 200 || strings.Contains(w.Body.String(), `class="alert`) || w.Result().Cookies()[0].MaxAge != -1 {
			t.Errorf("%q is shown, or is kept: %s", value, w.Body)
		}
	}
	// A long one is cut where a character ends.
	w = k.answer(call{method: "POST", path: "/account/save", body: "text=" + strings.Repeat("%C3%A4", 4000)})
	set = w.Result().Cookies()
	if len(set[0].Value) > 4000 {
		t.Errorf("a cookie of %d bytes", len(set[0].Value))
	}
	if w = show(set[0].Name + "=" + set[0].Value); !strings.Contains(w.Body.String(), strings.Repeat("ä", maxFlash/2)) {
		t.Errorf("a long message: %s", w.Body)
	}
}
