package mfa

import (
	"bytes"
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"rsc.io/qr"
)

// readQR prints what zbar finds in a grey image, as a phone does: nothing says where the
// code is. The input is the side of the image, and a byte for each pixel.
const readQR = `
import sys, zbar
side, pixels = sys.stdin.buffer.read().split(b"\n", 1)
image = zbar.Image(int(side), int(side), "Y800", pixels)
scanner = zbar.ImageScanner()
scanner.scan(image)
for symbol in image:
    assert symbol.type == zbar.Symbol.QRCODE, symbol.type
    print(symbol.data)
`

func TestQRIsReadByAScanner(t *testing.T) {
	secret, err := newSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		otpauthURI("Example", "alice", secret),
		otpauthURI("ACME Co", "john.doe@email.com", secret),
		otpauthURI("login.example.com:8443", "Größe & Söhne", secret),
		otpauthURI("例え", strings.Repeat("太郎", 32), secret),
		otpauthURI(strings.Repeat("x", 64), strings.Repeat("😀", 64), secret),
		"0123456789", // other modes of QR codes
		"HTTPS://EXAMPLE.COM",
	} {
		svg, err := qrSVG(text)
		if err != nil {
			t.Fatal(err)
		}
		side, modules := modulesOf(t, svg)
		const scale = 3
		picture := image.NewGray(image.Rect(0, 0, side*scale, side*scale))
		draw.Draw(picture, picture.Rect, image.White, image.Point{}, draw.Src)
		for at := range modules {
			draw.Draw(picture, image.Rect(at.X*scale, at.Y*scale, (at.X+1)*scale, (at.Y+1)*scale), image.NewUniform(color.Black), image.Point{}, draw.Src)
		}
		cmd := exec.Command("/usr/bin/python3", "-c", readQR)
		cmd.Stdin = io.MultiReader(strings.NewReader(strconv.Itoa(side*scale)+"\n"), bytes.NewReader(picture.Pix))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("zbar (`make tools` installs it: python3-zbar): %v\n%s", err, out)
		}
		if got := strings.TrimSuffix(string(out), "\n"); got != text {
			t.Errorf("a code of %d modules with %q is read as %q", side, text, got)
		}
	}
}

// The path has the modules that the library made, four modules from the edge.
func TestQRHasModulesOfTheLibrary(t *testing.T) {
	for n := range 40 {
		text := strings.Repeat("otpauth://", n+1)
		svg, err := qrSVG(text)
		if err != nil {
			t.Fatal(err)
		}
		code, err := qr.Encode(text, qr.M)
		if err != nil {
			t.Fatal(err)
		}
		side, modules := modulesOf(t, svg)
		if side != code.Size+8 {
			t.Errorf("%d bytes: the image has %d modules, the code %d", len(text), side, code.Size)
		}
		for y := range side {
			for x := range side {
				if black := modules[image.Pt(x, y)]; black != code.Black(x-4, y-4) {
					t.Errorf("%d bytes: the module at %d, %d is black: %t", len(text), x, y, black)
				}
			}
		}
		if again, err := qrSVG(text); err != nil || again != svg {
			t.Errorf("the image is another one the second time (%v)", err)
		}
	}
}

func TestQRIsTooLong(t *testing.T) {
	if _, err := qrSVG(strings.Repeat("a", 2331)); err != nil {
		t.Errorf("2331 bytes: %v", err)
	}
	secret := strings.Repeat("a", 2332)
	svg, err := qrSVG(secret)
	if err == nil || svg != "" || strings.Contains(err.Error(), "aaa") {
		t.Errorf("2332 bytes: %d bytes of SVG, %v", len(svg), err)
	}
}

// modulesOf parses the image as XML, checks that it has what it may have and nothing else,
// and returns its side and the modules that its path fills, each of them once.
func modulesOf(t *testing.T, svg string) (side int, black map[image.Point]bool) {
	t.Helper()
	var elements []string
	attributes := map[string]string{}
	title := ""
	for decoder := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := decoder.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Space != "http://www.w3.org/2000/svg" {
				t.Errorf("the element %v is no SVG", token.Name)
			}
			elements = append(elements, token.Name.Local)
			for _, a := range token.Attr {
				attributes[token.Name.Local+"."+a.Name.Local] = a.Value
			}
		case xml.CharData:
			title += string(token)
		case xml.EndElement:
		default:
			t.Errorf("the image has %T", token)
		}
	}
	if got := strings.Join(elements, " "); got != "svg title rect path" || title != "QR code" {
		t.Fatalf("the elements are %s, the title is %q", got, title)
	}
	if _, err := fmt.Sscanf(attributes["svg.viewBox"], "0 0 %d", &side); err != nil {
		t.Fatal(err)
	}
	path := attributes["path.d"]
	delete(attributes, "path.d")
	want := map[string]string{
		"svg.xmlns": "http://www.w3.org/2000/svg", "svg.role": "img", "svg.shape-rendering": "crispEdges",
		"svg.width": strconv.Itoa(4 * side), "svg.height": strconv.Itoa(4 * side), "svg.viewBox": fmt.Sprintf("0 0 %d %[1]d", side),
		"rect.width": strconv.Itoa(side), "rect.height": strconv.Itoa(side), "rect.fill": "#fff", "path.fill": "#000",
	}
	if fmt.Sprint(attributes) != fmt.Sprint(want) {
		t.Errorf("the attributes are %v, not %v", attributes, want)
	}
	black = map[image.Point]bool{}
	run := regexp.MustCompile(`^M(\d+) (\d+)h(\d+)v1h-(\d+)z`)
	for path != "" {
		match := run.FindStringSubmatch(path)
		if match == nil || match[3] != match[4] {
			t.Fatalf("the path goes on with %.40s", path)
		}
		path = path[len(match[0]):]
		var x, y, length int
		if _, err := fmt.Sscan(strings.Join(match[1:4], " "), &x, &y, &length); err != nil {
			t.Fatal(err)
		}
		for i := range length {
			at := image.Pt(x+i, y)
			if black[at] {
				t.Errorf("the module at %v is filled twice", at)
			}
			black[at] = true
		}
	}
	return side, black
}
