package page

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// A page that says what was done says it where the browser was led by Done, and not to whoever
// follows a link.
func TestDone(t *testing.T) {
	k := newKit(t, nil)
	k.Post("/account/do", Anybody, func(v *Visit) error { return v.Done("/account/done?what=this&of=1") })
	k.Get("/account/done", Anybody, func(v *Visit) error {
		status := http.StatusTeapot
		if v.WasDone() {
			status = http.StatusOK
		}
		v.Writer.WriteHeader(status)
		return nil
	})
	mux := http.NewServeMux()
	k.Mount(mux)
	ask := func(method, path string, cookies ...*http.Cookie) *http.Response {
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Result()
	}
	a := ask("POST", "/account/do")
	cookies := a.Cookies()
	if a.StatusCode != 303 || len(cookies) != 1 || cookies[0].MaxAge != 60 || !cookies[0].HttpOnly {
		t.Fatalf("%d %v", a.StatusCode, cookies)
	}
	for range 2 { // a page may be loaded again
		if a := ask("GET", a.Header.Get("Location"), cookies...); a.StatusCode != 200 {
			t.Errorf("after it was done: %d", a.StatusCode)
		}
	}
	if a := ask("GET", "/account/done?what=this&of=2", cookies...); a.StatusCode != http.StatusTeapot {
		t.Errorf("another address: %d", a.StatusCode)
	}
	if a := ask("GET", a.Header.Get("Location")); a.StatusCode != http.StatusTeapot {
		t.Errorf("a link: %d", a.StatusCode)
	}
}
