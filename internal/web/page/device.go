package page

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxReadable bounds what is shown of what a client has said of itself, in characters.
const maxReadable = 80

// A part of a User-Agent (RFC 9110 §10.1.5) says which program or system it is. The first that
// is there counts: the later ones stand in those of others, too.
type part struct{ token, name string }

var (
	browsers = []part{
		{"Edg/", "Microsoft Edge"}, {"EdgA/", "Microsoft Edge"}, {"EdgiOS/", "Microsoft Edge"},
		{"OPR/", "Opera"}, {"OPX/", "Opera"}, {"Vivaldi/", "Vivaldi"}, {"SamsungBrowser/", "Samsung Internet"},
		{"YaBrowser/", "Yandex Browser"}, {"DuckDuckGo/", "DuckDuckGo"}, {"Ddg/", "DuckDuckGo"},
		{"Seamonkey/", "SeaMonkey"}, {"SeaMonkey/", "SeaMonkey"},
		{"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"}, {"Focus/", "Firefox Focus"},
		{"Chromium/", "Chromium"}, {"HeadlessChrome/", "Chrome"}, {"CriOS/", "Chrome"}, {"Chrome/", "Chrome"},
		{"Safari/", "Safari"},
	}
	systems = []part{
		{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"iPod", "iPod"}, {"Android", "Android"}, {"CrOS", "ChromeOS"},
		{"Windows", "Windows"}, {"Macintosh", "macOS"}, {"FreeBSD", "FreeBSD"}, {"OpenBSD", "OpenBSD"}, {"Linux", "Linux"},
	}
)

func find(parts []part, text string) string {
	for _, p := range parts {
		if strings.Contains(text, p.token) {
			return p.name
		}
	}
	return ""
}

// Device says in plain words which browser and system a User-Agent names. One that names none is
// shown as it is. Browsers say what they like, so this is a help to recognise a device and proves
// nothing.
func (v *Visit) Device(userAgent string) string {
	text := Readable(userAgent)
	if text == "" {
		return v.T("device.unknown")
	}
	if !strings.HasPrefix(text, "Mozilla/") {
		return text
	}
	browser, system := find(browsers, userAgent), find(systems, userAgent)
	switch {
	case browser != "" && system != "":
		return v.T("device.of", "browser", browser, "system", system)
	case browser != "" || system != "":
		return browser + system
	}
	return text
}

// Readable is what a client has said, of a bounded length and without characters that are not
// seen or turn others round.
func Readable(text string) string {
	text = strings.TrimSpace(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return utf8.RuneError
		}
		return c
	}, text))
	if utf8.RuneCountInString(text) > maxReadable {
		text = string([]rune(text)[:maxReadable]) + "…"
	}
	return text
}
