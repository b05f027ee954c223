package page

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Brand is how a deployment looks.
type Brand struct {
	Name string // one line, which the settings bound; empty: Watchword
	// Logo is a picture in SVG, PNG or WebP (CheckLogo); nil: a default one.
	Logo []byte
	// Accent is the color of links, buttons and what else wants attention; Header is that of
	// the bar at the top. The zero Color: a default one.
	Accent, Header Color
}

// DefaultName is what pages call this service if a Brand has no name.
const DefaultName = "Watchword"

// MaxLogo bounds the logo, in bytes.
const MaxLogo = 64 << 10

// legible is the contrast that text needs (WCAG 2.2 §1.4.3).
const legible = 4.5

// Check returns an error if a brand cannot be shown, or not so that it can be read: in one
// sentence, with the contrast that was found.
func (b Brand) Check() error {
	if b.Logo != nil {
		if _, err := CheckLogo(b.Logo); err != nil {
			return err
		}
	}
	if ratio := contrast(b.accent(), lightSunk); ratio < legible {
		return fmt.Errorf("the accent %s has a contrast of %.2f:1 against the light page, and text needs %.1f:1; choose a darker one", b.accent(), math.Floor(ratio*100)/100, legible)
	}
	return nil
}

func (b Brand) name() string { return cmp.Or(b.Name, DefaultName) }

func (b Brand) accent() Color {
	if b.Accent == (Color{}) {
		return defaultAccent
	}
	return b.Accent
}

func (b Brand) header() Color {
	if b.Header == (Color{}) {
		return defaultHeader
	}
	return b.Header
}

// The colors of page.css against which those of a brand are read. A test holds that they are
// the same there.
var (
	lightSunk = mustColor("#eef1f5") // --sunk, the darkest background of the light theme
	darkCard  = mustColor("#1a212b") // --card, the lightest one of the dark theme

	defaultAccent = mustColor("#1d56c4")
	defaultHeader = mustColor("#14233b")
	white         = mustColor("#ffffff")
	ink           = mustColor("#10161e")
)

// themeCSS returns the brand's colors as a style sheet. Those of the dark theme are made of
// them, so that they can be read there, too.
func (b Brand) themeCSS() []byte {
	accent, header := b.accent(), b.header()
	darkAccent := mixedUntil(accent, white, func(c Color) bool { return contrast(c, darkCard) >= legible })
	// A bar that dazzles is no dark theme.
	darkHeader := mixedUntil(header, ink, func(c Color) bool { return contrast(c, white) >= 7 })
	var w bytes.Buffer
	theme := func(accent, header Color) {
		fmt.Fprintf(&w, ":root{--accent:%s;--on-accent:%s;--header:%s;--on-header:%s}", accent, textOn(accent), header, textOn(header))
	}
	theme(accent, header)
	w.WriteString("@media (prefers-color-scheme:dark){")
	theme(darkAccent, darkHeader)
	w.WriteString("}\n")
	return w.Bytes()
}

// A Color is one of sRGB. The zero Color is none: black is as good as never meant, and
// ParseColor makes "#000000" the darkest gray instead.
type Color struct{ R, G, B uint8 }

// ParseColor reads a color like "#1d56c4" or "#15c".
func ParseColor(text string) (Color, error) {
	digits, ok := strings.CutPrefix(text, "#")
	if ok && len(digits) == 3 {
		digits = string([]byte{digits[0], digits[0], digits[1], digits[1], digits[2], digits[2]})
	}
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != 3 {
		return Color{}, fmt.Errorf("%q is not a color like #1d56c4", text)
	}
	c := Color{b[0], b[1], b[2]}
	if c == (Color{}) {
		c = Color{1, 1, 1}
	}
	return c, nil
}

func mustColor(text string) Color {
	c, err := ParseColor(text)
	if err != nil {
		panic(err)
	}
	return c
}

// String returns the color as ParseColor reads it.
func (c Color) String() string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

// luminance is the relative one (WCAG 2.2), from 0 to 1.
func (c Color) luminance() float64 {
	linear := func(v uint8) float64 {
		x := float64(v) / 255
		if x <= 0.04045 {
			return x / 12.92
		}
		return math.Pow((x+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
}

// contrast returns the contrast ratio of two colors (WCAG 2.2), from 1 to 21.
func contrast(a, b Color) float64 {
	la, lb := a.luminance(), b.luminance()
	return (max(la, lb) + 0.05) / (min(la, lb) + 0.05)
}

// textOn returns the color of text that can be read better on another one. One of both has a
// contrast of 4.2 at least, and of 4.5 with every color but some grays of the middle.
func textOn(c Color) Color {
	if contrast(white, c) >= contrast(ink, c) {
		return white
	}
	return ink
}

// mixedUntil mixes more and more of another color into one, until it is as wanted.
func mixedUntil(c, with Color, ok func(Color) bool) Color {
	const steps = 100
	mix := func(a, b uint8, i int) uint8 { return uint8((int(a)*(steps-i) + int(b)*i) / steps) }
	for i := range steps {
		if m := (Color{mix(c.R, with.R, i), mix(c.G, with.G, i), mix(c.B, with.B, i)}); ok(m) {
			return m
		}
	}
	return with
}

var errLogo = errors.New("the logo is neither SVG nor PNG nor WebP")

// CheckLogo returns the media type of a logo, by what is in it. An SVG image may have scripts in
// it and links to elsewhere; as an image of a page, and by the policy that it is served with, it
// can do nothing with them.
func CheckLogo(logo []byte) (mediaType string, err error) {
	switch {
	case len(logo) > MaxLogo:
		return "", fmt.Errorf("the logo is larger than %d KiB", MaxLogo>>10)
	case bytes.HasPrefix(logo, []byte("\x89PNG\r\n\x1a\n")):
		return "image/png", nil
	case len(logo) > 12 && string(logo[:4]) == "RIFF" && string(logo[8:12]) == "WEBP":
		return "image/webp", nil
	}
	d := xml.NewDecoder(bytes.NewReader(logo))
	root := ""
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) && root == "svg" {
			return "image/svg+xml", nil
		}
		if err != nil {
			return "", errLogo
		}
		switch t := t.(type) {
		case xml.Directive: // DOCTYPE, which may define entities
			return "", errors.New("the logo is SVG with a document type, which must be left out")
		case xml.StartElement:
			if root == "" {
				root = t.Name.Local
			}
			if root != "svg" {
				return "", errLogo
			}
		}
	}
}
