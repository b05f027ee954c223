package page

import (
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

var argument = regexp.MustCompile(`\{[a-z_]+\}`)

// Every language has the same texts, with the same arguments.
func TestCatalogues(t *testing.T) {
	catalogues, _ := languages()
	if len(catalogues) < 2 || catalogues[0].tag.String() != "en" {
		t.Fatalf("%d languages, the first is %v", len(catalogues), catalogues[0].tag)
	}
	english := catalogues[0]
	for _, c := range catalogues[1:] {
		for key := range maps.Keys(c.texts) {
			if _, ok := english.texts[key]; !ok {
				t.Errorf("%v has %s, and English has not", c.tag, key)
			}
		}
		for key, text := range english.texts {
			other, ok := c.texts[key]
			if !ok || strings.TrimSpace(other) == "" {
				t.Errorf("%v has no %s", c.tag, key)
				continue
			}
			a, b := argument.FindAllString(text, -1), argument.FindAllString(other, -1)
			slices.Sort(a)
			slices.Sort(b)
			if !slices.Equal(slices.Compact(a), slices.Compact(b)) {
				t.Errorf("%v: %s has the arguments %v, and in English %v", c.tag, key, b, a)
			}
		}
	}
}

// Every text that the pages ask for is there, and none is there that nothing asks for.
func TestTextsAreUsed(t *testing.T) {
	catalogues, _ := languages()
	call := regexp.MustCompile(`\bT\((?:ctx, ?)?"([^"]+)"(\s*\+)?`)
	literal := regexp.MustCompile(`"([a-z0-9_]+\.[a-z0-9_.]*)"(\s*\+)?`)
	code := regexp.MustCompile(`problem\.New\(problem\.\w+, "([a-z_]+)"`)
	used, prefixes, codes := map[string]bool{}, []string{}, map[string]bool{"internal": true}
	calls := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, "_templ.go") || !strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, ".templ") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range code.FindAllStringSubmatch(strings.Join(strings.Fields(string(b)), " "), -1) {
			codes[m[1]] = true
		}
		if !strings.HasPrefix(path, "../../web/") {
			return nil
		}
		for _, m := range call.FindAllStringSubmatch(string(b), -1) {
			calls++
			if _, ok := catalogues[0].texts[m[1]]; !ok && m[2] == "" {
				t.Errorf("%s: there is no text %q", path, m[1])
			}
		}
		for _, m := range literal.FindAllStringSubmatch(string(b), -1) {
			used[m[1]] = true
			if m[2] != "" && strings.HasSuffix(m[1], ".") && m[1] != "error." {
				prefixes = append(prefixes, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls < 10 || len(codes) < 50 {
		t.Fatalf("%d calls and %d codes were found", calls, len(codes))
	}
	for key := range catalogues[0].texts {
		ofError, isError := strings.CutPrefix(key, "error.")
		if !used[key] && !(isError && codes[ofError]) && !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(key, p) }) {
			t.Errorf("nothing uses the text %q", key)
		}
	}
}

func TestLanguageOfAVisit(t *testing.T) {
	k := newKit(t, nil)
	k.Get("/account", Anybody, hello)
	for _, c := range []struct{ query, accept, cookie, want string }{
		{"", "", "", "en"},
		{"", "de", "", "de"},
		{"", "de-AT, en;q=0.8", "", "de"},
		{"", "fr, en;q=0.9, de;q=0.8", "", "en"},
		{"", "fr, de;q=0.5", "", "de"},
		{"", "fr", "", "en"},
		{"", "*", "", "en"},
		{"", "de;q=0", "", "en"},
		{"", "\x00garbage;;;", "", "en"},
		{"", strings.Repeat("de,", 200), "", "en"},
		{"?ui_locales=de", "en", "", "de"},
		{"?ui_locales=fr+de-CH+en", "en", "", "de"},
		{"?ui_locales=ja", "de", "", "de"},
		{"?ui_locales=en", "de", "watchword-language=de", "en"},
		{"", "en", "watchword-language=de", "de"},
		{"", "de", "watchword-language=x!", "de"},
	} {
		w := k.answer(call{path: "/account" + c.query, header: map[string]string{"Accept-Language": c.accept, "Cookie": c.cookie}})
		if !strings.Contains(w.Body.String(), `<html lang="`+c.want+`">`) {
			t.Errorf("%+v: %.60s", c, w.Body)
		}
	}
	// The language that was asked for stays.
	w := k.answer(call{path: "/account?ui_locales=de-DE"})
	if set := w.Header().Get("Set-Cookie"); set != "watchword-language=de; Path=/; HttpOnly; SameSite=Lax" {
		t.Error(set)
	}
}

// A language is added by a file.
func TestAnotherLanguage(t *testing.T) {
	all, err := readCatalogues(fstest.MapFS{
		"lang/fr.yaml": {Data: []byte(`page.skip: "Aller au contenu"`)}, "lang/en.yaml": {Data: []byte(`page.skip: "Skip"`)}, "lang/ar.yaml": {Data: []byte(`{}`)},
	})
	if err != nil || len(all) != 3 || all[0].tag.String() != "en" || all[2].text("page.skip") != "Aller au contenu" {
		t.Errorf("%v, %v", all, err)
	}
	for name, data := range map[string]string{"lang/none-of-this.yaml": "{}", "lang/fr.yaml": "[]", "lang/de.yaml": "a: {b: c}", "lang/en.yaml": "a: b\na: c"} {
		if _, err := readCatalogues(fstest.MapFS{name: {Data: []byte(data)}}); err == nil {
			t.Errorf("%s %q is read", name, data)
		}
	}
}

// An argument is not looked through for others.
func TestArguments(t *testing.T) {
	c := &catalogue{texts: map[string]string{"key": "{a} and {b} and {c}"}}
	if got := c.text("key", "a", "{b}", "b", 2); got != "{b} and 2 and {c}" {
		t.Error(got)
	}
}

func TestNumbersAndDurations(t *testing.T) {
	k := newKit(t, nil)
	in := func(lang string) *Visit {
		v, _ := visitTo(k, "localhost", func(r *http.Request) { r.Header.Set("Accept-Language", lang) })
		return v
	}
	en, de := in("en"), in("de")
	for n, want := range map[int][2]string{0: {"0", "0"}, 999: {"999", "999"}, 1000: {"1,000", "1.000"}, -1234567: {"-1,234,567", "-1.234.567"}} {
		if en.Number(n) != want[0] || de.Number(n) != want[1] {
			t.Errorf("%d: %s %s", n, en.Number(n), de.Number(n))
		}
	}
	for x, want := range map[float64]string{0: "0", 1.5: "1.5", 0.12345: "0.123", 12.34: "12.3", 123.4: "123", 1234.5: "1,234", 0.00001: "0", -2.25: "-2.25", 1e6: "1,000,000"} {
		if got := en.Decimal(x); got != want {
			t.Errorf("%v: %s, want %s", x, got, want)
		}
	}
	if got := de.Decimal(1.5); got != "1,5" {
		t.Error(got)
	}
	for seconds, want := range map[int]string{0: "0 seconds", 1: "1 second", 59: "59 seconds", 90: "90 seconds", 91: "2 minutes", 3600: "60 minutes", 7200: "2 hours", 36 * 3600: "36 hours", 200 * 3600: "9 days"} {
		if got := en.Duration(seconded(seconds)); got != want {
			t.Errorf("%d: %s, want %s", seconds, got, want)
		}
	}
}

func seconded(n int) time.Duration { return time.Duration(n) * time.Second }
