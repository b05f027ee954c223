package mfa

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

const (
	qrQuiet = 4 // modules of white around a QR code (ISO/IEC 18004 §9.1)
	qrPixel = 4 // pixels of a module, where the page does not scale the image
)

// qrSVG returns a QR code of text as an SVG image. It has no script, no style and no
// reference, so it can stand in a page under any content security policy. Equal texts have
// equal images. An error means that the text is too long: 2331 bytes fit.
func qrSVG(text string) (string, error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", fmt.Errorf("making a QR code of %d bytes: %w", len(text), err)
	}
	side := code.Size + 2*qrQuiet
	var svg strings.Builder
	fmt.Fprintf(&svg, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" shape-rendering="crispEdges">`,
		side*qrPixel, side*qrPixel, side, side)
	// White is painted: a page may be dark.
	fmt.Fprintf(&svg, `<title>QR code</title><rect width="%d" height="%d" fill="#fff"/><path fill="#000" d="`, side, side)
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			start := x
			for code.Black(x, y) {
				x++
			}
			if run := x - start; run > 0 {
				fmt.Fprintf(&svg, "M%d %dh%dv1h-%dz", start+qrQuiet, y+qrQuiet, run, run)
			}
		}
	}
	svg.WriteString(`"/></svg>`)
	return svg.String(), nil
}
