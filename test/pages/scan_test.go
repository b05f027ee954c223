package pages

import (
	"bytes"
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"net/url"
	"os/exec"
	"strings"

	"github.com/watchword-auth/watchword/test/browser"
)

// readQR prints what zbar finds in a grey image, as a phone does.
const readQR = `
import sys, zbar
size, pixels = sys.stdin.buffer.read().split(b"\n", 1)
width, height = size.split()
image = zbar.Image(int(width), int(height), "Y800", pixels)
zbar.ImageScanner().scan(image)
print("\n".join(symbol.data for symbol in image))
`

// scans has an authenticator app scan the page. The text beside the code says the same.
func (p *person) scans() *totpApp {
	p.t.Helper()
	picture, err := png.Decode(bytes.NewReader(p.Screenshot()))
	if err != nil {
		p.t.Fatal(err)
	}
	size := picture.Bounds()
	grey := image.NewGray(size)
	draw.Draw(grey, size, picture, size.Min, draw.Src)
	cmd := exec.Command("/usr/bin/python3", "-c", readQR)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("%d %d\n%s", size.Dx(), size.Dy(), grey.Pix))
	out, err := cmd.Output()
	if err != nil {
		p.t.Fatalf("zbar: %v", err)
	}
	u, err := url.Parse(strings.TrimSpace(string(out)))
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" {
		p.t.Fatalf("the page has a QR code of %q: %v\n%s", out, err, p.Describe())
	}
	secret := u.Query().Get("secret")
	if shown := strings.Join(strings.Fields(p.codes()), ""); shown != secret {
		p.t.Errorf("the text beside the QR code is %q", shown)
	}
	return &totpApp{t: p.t, secret: secret}
}

// codes is what the page shows to be copied.
func (p *person) codes() string {
	p.t.Helper()
	return browser.Eval[string](p.Browser, "document.querySelector('.code pre').textContent")
}
