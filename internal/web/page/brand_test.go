package page

import (
	"bytes"
	"encoding/base64"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
)

func TestParseColor(t *testing.T) {
	for text, want := range map[string]Color{"#1d56c4": {0x1d, 0x56, 0xc4}, "#15C": {0x11, 0x55, 0xcc}, "#FFFFFF": {255, 255, 255}, "#000": {1, 1, 1}} {
		if got, err := ParseColor(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "#", "#12", "#1234", "#12345", "#1234567", "123456", "#gggggg", "red", "#12345 ", "rgb(1,2,3)", "#1d56c4;}*{}"} {
		if got, err := ParseColor(bad); err == nil || got != (Color{}) {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

// The values of WCAG's own examples and of its working group's calculators.
func TestContrast(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want float64
	}{{"#ffffff", "#010101", 20.87}, {"#777777", "#ffffff", 4.48}, {"#767676", "#ffffff", 4.54}, {"#ff0000", "#ffffff", 4.00}, {"#1d56c4", "#1d56c4", 1}} {
		a, b := mustColor(c.a), mustColor(c.b)
		if got := contrast(a, b); math.Abs(got-c.want) > 0.01 || got != contrast(b, a) {
			t.Errorf("%s on %s: %.3f, want %.2f", c.a, c.b, got, c.want)
		}
	}
}

func TestCheckBrand(t *testing.T) {
	for _, good := range []Brand{{}, {Name: "Müller & Söhne", Accent: mustColor("#a01060"), Header: mustColor("#ffee00")}, {Logo: []byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`)}} {
		if err := good.Check(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, c := range []struct {
		b    Brand
		says string
	}{
		{Brand{Accent: mustColor("#00aaff")}, "the accent #00aaff has a contrast of 2.26:1 against the light page, and text needs 4.5:1; choose a darker one"},
		{Brand{Accent: mustColor("#ffffff")}, "1.13:1"},
		{Brand{Logo: []byte("GIF89a")}, "neither SVG nor PNG nor WebP"},
	} {
		if err := c.b.Check(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.says, err)
		}
	}
}

// Whatever the brand, its colors can be read in both themes.
func TestThemesCanBeRead(t *testing.T) {
	values := regexp.MustCompile(`--([a-z-]+):(#[0-9a-f]{6})`)
	tried := 0
	for r := 0; r < 256; r += 51 {
		for g := 0; g < 256; g += 51 {
			for b := 0; b < 256; b += 51 {
				c := Color{uint8(r), uint8(g), uint8(b)}
				brand := Brand{Accent: c, Header: c}
				if brand.Check() != nil {
					brand.Accent = Color{}
				}
				themes := strings.SplitN(string(brand.themeCSS()), "@media", 2)
				for i, theme := range themes {
					of := map[string]Color{}
					for _, m := range values.FindAllStringSubmatch(theme, -1) {
						of[m[1]] = mustColor(m[2])
					}
					if len(of) != 4 {
						t.Fatalf("%s", theme)
					}
					behind := []Color{lightSunk, darkCard}[i]
					for _, pair := range [][2]Color{{of["accent"], behind}, {of["accent"], of["on-accent"]}} {
						if got := contrast(pair[0], pair[1]); got < legible {
							t.Errorf("accent %v, theme %d: %v on %v: %.2f", c, i, pair[0], pair[1], got)
						}
					}
					// Some grays of the middle reach no more with either.
					if got := contrast(of["header"], of["on-header"]); got < 4.2 {
						t.Errorf("header %v, theme %d: %.2f", c, i, got)
					}
					tried++
				}
			}
		}
	}
	if tried != 6*6*6*2 {
		t.Errorf("%d themes", tried)
	}
}

// The colors of page.css can be read, and are those that brand.go knows.
func TestColorsCanBeRead(t *testing.T) {
	css, err := os.ReadFile("assets/page.css")
	if err != nil {
		t.Fatal(err)
	}
	values := regexp.MustCompile(`--([a-z0-9-]+): (#[0-9a-f]{6});`)
	light, dark := map[string]Color{}, map[string]Color{}
	start, dark_, ok := strings.Cut(string(css), "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("no dark theme")
	}
	for text, of := range map[string]map[string]Color{start: light, dark_: dark} {
		for _, m := range values.FindAllStringSubmatch(text, -1) {
			of[m[1]] = mustColor(m[2])
		}
	}
	if light["sunk"] != lightSunk || dark["card"] != darkCard || len(light) != len(dark) {
		t.Errorf("brand.go has other colors than page.css: %v %v", light, dark)
	}
	for name, of := range map[string]map[string]Color{"light": light, "dark": dark} {
		check := func(text, back string, least float64) {
			a, oka := of[text]
			b, okb := of[back]
			if got := contrast(a, b); !oka || !okb || got < least {
				t.Errorf("%s: %s on %s: %.2f, want %.1f", name, text, back, got, least)
			}
		}
		for _, back := range []string{"page", "card", "sunk"} {
			check("text", back, 7)
			check("muted", back, 4.5)
			check("bad", back, 4.5)
			check("edge", back, 3)
		}
		for _, kind := range []string{"good", "caution", "bad", "info"} {
			check(kind, kind+"-back", 4.5)
		}
		for _, n := range "123456" {
			check("series-"+string(n), "card", 3)
		}
	}
}

const png1x1 = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

func TestLogos(t *testing.T) {
	png, _ := base64.StdEncoding.DecodeString(png1x1)
	for _, c := range []struct{ logo, want string }{
		{string(png), "image/png"},
		{"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"},
		{"<?xml version=\"1.0\"?>\n<!-- made by hand -->\n<svg xmlns=\"http://www.w3.org/2000/svg\"><g/></svg>\n", "image/svg+xml"},
		{"\ufeff<svg/>", "image/svg+xml"},
		{"<svg>", ""},
		{"<html><svg/></html>", ""},
		{"<!DOCTYPE svg [<!ENTITY a \"b\">]><svg/>", ""},
		{"<svg>&a;</svg>", ""},
		{"GIF89a", ""},
		{"\xff\xd8\xff\xe0", ""},
		{"", ""},
		{"<svg>" + strings.Repeat(" ", MaxLogo) + "</svg>", ""},
	} {
		got, err := CheckLogo([]byte(c.logo))
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%.40q: %q, %v", c.logo, got, err)
		}
	}
	// A logo with a script is served so that it cannot run.
	k := newKit(t, func(c *Config) {
		c.Brand.Logo = []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`)
	})
	k.Get("/account", Anybody, hello)
	w := k.answer(call{path: k.Asset("logo")})
	if csp := w.Header().Get("Content-Security-Policy"); w.Code != 200 || !strings.Contains(csp, "sandbox") || !strings.Contains(csp, "default-src 'none'") || w.Header().Get("Content-Type") != "image/svg+xml" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	page := k.answer(call{path: "/account"}).Body.Bytes()
	if !bytes.Contains(page, []byte(`<img src="`+k.Asset("logo")+`"`)) || bytes.Contains(page, []byte("alert(1)")) {
		t.Errorf("the page: %s", page)
	}
}
