package page

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"regexp"
	"testing"
)

func TestAssets(t *testing.T) {
	k := newKit(t, nil)
	k.AddAsset("signin.js", []byte("1;"))
	for _, name := range []string{"page.css", "page.js", "htmx.min.js", "mark.svg", "theme.css", "logo", "signin.js"} {
		path := k.Asset(name)
		if !regexp.MustCompile(`^/assets/[a-z.]+-[0-9a-f]{16}\.(css|js|svg)$`).MatchString(path) {
			t.Errorf("%s: %s", name, path)
		}
		plain := k.answer(call{path: path})
		if plain.Code != 200 || plain.Header().Get("Cache-Control") != "public, max-age=31536000, immutable" || plain.Header().Get("Content-Encoding") != "" {
			t.Errorf("%s: %d %v", name, plain.Code, plain.Header())
		}
		packed := k.answer(call{path: path, header: map[string]string{"Accept-Encoding": "br, gzip"}})
		body := packed.Body.Bytes()
		if packed.Header().Get("Content-Encoding") == "gzip" {
			r, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			if body, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		} else if len(body) > 100 {
			t.Errorf("%s is not compressed", name)
		}
		if !bytes.Equal(body, plain.Body.Bytes()) || packed.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s is another file when it is compressed", name)
		}
		// While replicas are updated, a page of one version asks another one for its files.
		other := k.answer(call{path: regexp.MustCompile(`-[0-9a-f]{16}`).ReplaceAllString(path, "-0123456789abcdef")})
		if other.Code != 200 || other.Header().Get("Cache-Control") != "no-store" || !bytes.Equal(other.Body.Bytes(), plain.Body.Bytes()) {
			t.Errorf("%s under the hash of another version: %d %v", name, other.Code, other.Header())
		}
		if got := k.answer(call{method: "POST", path: path}).Code; got != 405 {
			t.Errorf("POST %s: %d", name, got)
		}
	}
	for _, path := range []string{"/assets/", "/assets/page.css", "/assets/%2e%2e/kit.go", "/assets/page-0.css", "/assets/other-0123456789abcdef.css", "/assets/page-0123456789abcdef.js.map"} {
		if got := k.answer(call{path: path}).Code; got != 404 {
			t.Errorf("%s: %d", path, got)
		}
	}
}

// A name changes with what is in the file, so that it is kept for good.
func TestAssetNames(t *testing.T) {
	blue, red := newKit(t, nil), newKit(t, func(c *Config) { c.Brand.Accent = mustColor("#a01010") })
	if blue.Asset("theme.css") == red.Asset("theme.css") || blue.Asset("page.css") != red.Asset("page.css") {
		t.Error(blue.Asset("theme.css"), red.Asset("theme.css"))
	}
}

// What a browser loads for its first page, compressed. The sign-in has a script of its own.
func TestSizes(t *testing.T) {
	k := newKit(t, nil)
	k.Get("/signin", Anybody, func(v *Visit) error {
		return v.Show(http.StatusOK, Layout{Title: "Sign in", Narrow: true, Content: signIn()})
	})
	k.Get("/admin", Anybody, func(v *Visit) error {
		return v.Show(http.StatusOK, Layout{Title: "Overview", Live: true, Content: gallery()})
	})
	for path, most := range map[string]int{"/signin": 60 << 10, "/admin": 100 << 10} {
		html := k.answer(call{path: path}).Body.String()
		total := len(html)
		for _, m := range regexp.MustCompile(`/assets/[^"]+`).FindAllString(html, -1) {
			w := k.answer(call{path: m, header: map[string]string{"Accept-Encoding": "gzip"}})
			if w.Code != 200 {
				t.Errorf("%s: %d", m, w.Code)
			}
			t.Logf("%s: %s: %d bytes", path, m, w.Body.Len())
			total += w.Body.Len()
		}
		t.Logf("%s: %d bytes, with the page itself, which is not compressed", path, total)
		if total > most {
			t.Errorf("%s: %d bytes, and there may be %d", path, total, most)
		}
	}
}
