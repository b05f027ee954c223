package browser

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"slices"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
)

// A View is a screen.
type View struct {
	Width, Height int64 // in CSS pixels
	Phone         bool  // it has a touch screen, and heeds the viewport of the page
}

var (
	Desktop = View{Width: 1280, Height: 800}
	Phone   = View{Width: 390, Height: 844, Phone: true}
)

// Light and Dark are what a user prefers.
const (
	Light = "light"
	Dark  = "dark"
)

// A look is how a tab shows pages.
type look struct {
	view    View
	scale   float64 // pixels of the device for one of CSS
	scheme  string  // empty: no preference
	reduced bool    // motion

	noScripts bool
}

// View gives the tab another screen.
func (b *Browser) View(v View) {
	b.t.Helper()
	b.look.view = v
	b.metrics()
}

func (b *Browser) metrics() {
	b.t.Helper()
	l := b.look
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: l.view.Width, Height: l.view.Height, ScreenWidth: l.view.Width, ScreenHeight: l.view.Height, DeviceScaleFactor: l.scale, Mobile: l.view.Phone})
}

// Scheme says whether the user prefers Light or Dark; empty: neither.
func (b *Browser) Scheme(scheme string) {
	b.t.Helper()
	b.look.scheme = scheme
	b.media()
}

// ReducedMotion says whether the user prefers that little moves.
func (b *Browser) ReducedMotion(reduced bool) {
	b.t.Helper()
	b.look.reduced = reduced
	b.media()
}

func (b *Browser) media() {
	b.t.Helper()
	reduced := ""
	if b.look.reduced {
		reduced = "reduce"
	}
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: b.look.scheme}, {Name: "prefers-reduced-motion", Value: reduced},
	}})
}

// Scripts says whether scripts of pages run, from the next page on.
func (b *Browser) Scripts(run bool) {
	b.t.Helper()
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !run})
	b.look.noScripts = !run
}

// Fits fails if the page is wider than the screen, so that one must scroll sideways.
func (b *Browser) Fits() {
	b.t.Helper()
	wide := Eval[[]string](b, `(() => {
		const width = document.documentElement.clientWidth;
		if (document.documentElement.scrollWidth <= width && innerWidth <= screen.width) return [];
		const all = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > Math.min(width, screen.width) + 1);
		return ['page: ' + document.documentElement.scrollWidth + ' of ' + screen.width, ...all.slice(0, 10).map(e => e.cloneNode().outerHTML)];
	})()`)
	for _, w := range wide {
		b.t.Errorf("too wide: %s", w)
	}
}

// Screenshot is a picture of the whole page as PNG, from which nothing moves and for which all
// fonts are there.
func (b *Browser) Screenshot() []byte {
	b.t.Helper()
	return b.capture(0)
}

// capture takes a picture of the page down to a height in CSS pixels; 0: all of it.
func (b *Browser) capture(height float64) []byte {
	b.t.Helper()
	defer b.still()()
	b.Until(`document.fonts.status === 'loaded' && [...document.images].every(i => i.complete)`)
	beyond := true
	size := call(b, page.GetLayoutMetrics, cdp.Empty{}).CSSContentSize
	clip := page.Viewport{Width: size.Width, Height: size.Height, Scale: 1}
	if height > 0 {
		clip.Height = min(clip.Height, height)
	}
	return call(b, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatPng, Clip: &clip, CaptureBeyondViewport: &beyond}).Data
}

// PicturesTo is the environment variable that names the directory of the pictures.
const PicturesTo = "WATCHWORD_PICTURES"

const (
	pictureBytes  = 120 << 10 // what one may have: a document shows many
	pictureHeight = 1200      // CSS pixels, of what is longer
)

// pictureScales are pixels for one of CSS: the first is sharp on today's screens, and the other is
// for pages with much in them. Between the two, the same letter has many forms, which cost bytes.
var pictureScales = []float64{2, 1}

// Pictures takes three pictures of the page as it is, into files NAME-light.png, NAME-dark.png
// and NAME-narrow.png of the directory that WATCHWORD_PICTURES names. They are sharp and have few
// bytes. Where it names none they go with the test, and are neither, which is quick.
func (b *Browser) Pictures(name string) {
	b.t.Helper()
	dir, take := os.Getenv(PicturesTo), b.picture
	if dir == "" {
		dir, take = b.t.TempDir(), func() []byte { b.metrics(); return b.capture(pictureHeight) }
	}
	before := *b.look
	defer func() {
		*b.look = before
		b.metrics()
		b.media()
	}()
	for _, p := range []struct {
		kind   string
		view   View
		scheme string
	}{{"light", Desktop, Light}, {"dark", Desktop, Dark}, {"narrow", Phone, Light}} {
		b.look.view, b.look.scheme = p.view, p.scheme
		b.media()
		picture := take()
		if os.Getenv(PicturesTo) != "" && len(picture) > pictureBytes {
			b.t.Errorf("the picture %s-%s has %d bytes, and may have %d", name, p.kind, len(picture), pictureBytes)
		}
		if err := os.WriteFile(filepath.Join(dir, name+"-"+p.kind+".png"), picture, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

// picture takes the largest picture that is not too large, or the smallest one.
func (b *Browser) picture() (picture []byte) {
	b.t.Helper()
	for _, b.look.scale = range pictureScales {
		b.metrics()
		var err error
		if picture, err = fewColours(b.capture(pictureHeight)); err != nil {
			b.t.Fatal(err)
		}
		if len(picture) <= pictureBytes {
			break
		}
	}
	return picture
}

// fewColours encodes a PNG with a palette of 256 colours, which are a third of the bytes and
// look the same: pages have few.
func fewColours(encoded []byte) ([]byte, error) {
	decoded, err := png.Decode(bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	bounds := decoded.Bounds()
	src := image.NewRGBA(bounds)
	draw.Draw(src, bounds, decoded, bounds.Min, draw.Src)
	counts := make(map[color.RGBA]int)
	runs(src, func(c color.RGBA, from, to int) { counts[c] += to - from })
	palette := paletteOf(counts)
	nearest := make(map[color.RGBA]uint8, len(counts))
	for c := range counts {
		nearest[c] = uint8(palette.Index(c))
	}
	out := image.NewPaletted(bounds, palette)
	runs(src, func(c color.RGBA, from, to int) {
		index := nearest[c]
		for i := from; i < to; i++ {
			out.Pix[i] = index
		}
	})
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	err = encoder.Encode(&b, out)
	return b.Bytes(), err
}

// runs calls a function for each run of pixels of one colour.
func runs(m *image.RGBA, f func(c color.RGBA, from, to int)) {
	for from := 0; from < len(m.Pix); {
		to := from + 4
		for to < len(m.Pix) && [4]uint8(m.Pix[to:]) == [4]uint8(m.Pix[from:]) {
			to += 4
		}
		f(color.RGBA{m.Pix[from], m.Pix[from+1], m.Pix[from+2], m.Pix[from+3]}, from/4, to/4)
		from = to
	}
}

// paletteOf chooses 256 colours: half are the most frequent ones, as they are, and the others
// the means of boxes into which median cut divides the rest.
func paletteOf(counts map[color.RGBA]int) color.Palette {
	all := make([]color.RGBA, 0, len(counts))
	for c := range counts {
		all = append(all, c)
	}
	number := func(c color.RGBA) int { return int(c.R)<<16 | int(c.G)<<8 | int(c.B) }
	slices.SortFunc(all, func(x, y color.RGBA) int { return cmp.Or(counts[y]-counts[x], number(x)-number(y)) })
	exact := min(len(all), 256)
	if len(all) > 256 {
		exact = 128
	}
	var palette color.Palette
	for _, c := range all[:exact] {
		palette = append(palette, c)
	}
	boxes := [][]color.RGBA{all[exact:]}
	for len(boxes) > 0 && len(boxes[0]) > 1 && len(palette)+len(boxes) < 256 {
		boxes = append(boxes[1:], halves(boxes[0])...)
		slices.SortStableFunc(boxes, func(x, y []color.RGBA) int { return weight(y, counts) - weight(x, counts) })
	}
	for _, box := range boxes {
		if len(box) > 0 {
			palette = append(palette, mean(box, counts))
		}
	}
	return palette
}

func channel(c color.RGBA, i int) int { return int([3]uint8{c.R, c.G, c.B}[i]) }

// widest is the channel in which the colours of a box differ most, and how much.
func widest(box []color.RGBA) (at, width int) {
	for i := range 3 {
		lowest, highest := 255, 0
		for _, c := range box {
			lowest, highest = min(lowest, channel(c, i)), max(highest, channel(c, i))
		}
		if highest-lowest > width {
			at, width = i, highest-lowest
		}
	}
	return at, width
}

// weight says which box is divided next: how many pixels see a difference, and which.
func weight(box []color.RGBA, counts map[color.RGBA]int) int {
	if len(box) < 2 {
		return 0
	}
	pixels := 0
	for _, c := range box {
		pixels += counts[c]
	}
	_, width := widest(box)
	return pixels * width
}

func halves(box []color.RGBA) [][]color.RGBA {
	i, _ := widest(box)
	slices.SortStableFunc(box, func(x, y color.RGBA) int { return channel(x, i) - channel(y, i) })
	return [][]color.RGBA{box[:len(box)/2], box[len(box)/2:]}
}

func mean(box []color.RGBA, counts map[color.RGBA]int) color.RGBA {
	var sum [3]int
	pixels := 0
	for _, c := range box {
		for i := range sum {
			sum[i] += channel(c, i) * counts[c]
		}
		pixels += counts[c]
	}
	return color.RGBA{uint8(sum[0] / pixels), uint8(sum[1] / pixels), uint8(sum[2] / pixels), 255}
}
