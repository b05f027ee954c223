package httpkit

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func testProxies(header string) Proxies {
	return Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/64")}, Header: header}
}

// X-Forwarded-For counts as far as trusted proxies have written it.
func TestForwardedForIsBelievedFromProxiesAlone(t *testing.T) {
	proxies := testProxies("auto")
	for _, c := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"nothing is said", "192.0.2.1:4711", nil, "192.0.2.1"},
		{"a client says so", "192.0.2.1:4711", []string{"198.51.100.7"}, "192.0.2.1"},
		{"a client says it is a proxy", "192.0.2.1:4711", []string{"10.0.0.1, 198.51.100.7, 10.0.0.2"}, "192.0.2.1"},
		{"a proxy says so", "10.0.0.1:4711", []string{"198.51.100.7"}, "198.51.100.7"},
		{"a proxy passes on what a client says", "10.0.0.1:4711", []string{"198.51.100.66, 198.51.100.7"}, "198.51.100.7"},
		{"in several lines", "10.0.0.1:4711", []string{"198.51.100.66", "198.51.100.7"}, "198.51.100.7"},
		{"two proxies", "10.0.0.1:4711", []string{"198.51.100.66, 198.51.100.7, 10.9.9.9"}, "198.51.100.7"},
		{"nobody but proxies", "10.0.0.1:4711", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"a proxy says nothing", "10.0.0.1:4711", nil, "10.0.0.1"},
		{"nonsense before a proxy", "10.0.0.1:4711", []string{"198.51.100.66, unknown, 10.0.0.2"}, "10.0.0.2"},
		{"IPv4 in IPv6", "[::ffff:10.0.0.1]:4711", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"IPv6", "[2001:db8::1]:4711", []string{"2001:db8:1::7"}, "2001:db8:1::7"},
		{"a zone, which may be any text", "10.0.0.1:4711", []string{"fe80::1%level=ERROR msg=forged"}, "fe80::1"},
		{"no network", "@", []string{"198.51.100.7"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &http.Request{RemoteAddr: c.peer, Header: http.Header{"X-Forwarded-For": c.forwarded}}
			if got := proxies.Address(r); got != c.want {
				t.Errorf("the client is %q, want %q", got, c.want)
			}
		})
	}
}

// What a proxy writes is understood however it spells it, and in either header.
func TestSpellingsOfAForwardedAddress(t *testing.T) {
	const none = "10.0.0.1" // the proxy's own
	for spelled, want := range map[string]string{
		"198.51.100.7": "198.51.100.7", "198.51.100.7:51234": "198.51.100.7", "198.51.100.7:0": "198.51.100.7",
		"\t 198.51.100.7 \t": "198.51.100.7", "198.51.100.7:_port-1.x": "198.51.100.7",
		"2001:DB8:1::7": "2001:db8:1::7", "[2001:db8:1::7]": "2001:db8:1::7", "[2001:db8:1::7]:443": "2001:db8:1::7", "[2001:db8:1::7]:_p": "2001:db8:1::7",
		"2001:db8:1:2:3:4:5:6:443": "2001:db8:1:2:3:4:5:6", "2001:db8:1::7:51234": "2001:db8:1::7",
		"::ffff:198.51.100.7": "198.51.100.7", "[::ffff:198.51.100.7]:80": "198.51.100.7", "::ffff:198.51.100.7:80": "198.51.100.7",
		"fe80::1%eth0": "fe80::1", "[fe80::1%25eth0]:80": "fe80::1", "[fe80::1%level=ERROR msg=forged]": "fe80::1",

		"unknown": none, "_hidden": none, "_SEVKISEK": none, "unix": none, "client.example": none, "client.example:80": none,
		"[198.51.100.7]": none, "[198.51.100.7]:80": none, "[2001:db8:1::7": none, "2001:db8:1::7]": none, "[]": none, "[2001:db8:1::7]x": none,
		"[2001:db8:1::7]:": none, "198.51.100.7:": none, "198.51.100.7:123456": none, "198.51.100.7:8x": none, "198.51.100.7:80:80": none,
		"198.51.100.07": none, "198.51.100": none, "0x7f.1": none, "3325256711": none, ":80": none, "198.51.100.7 x": none, "%": none,
	} {
		quoted := `"` + strings.Trim(spelled, " \t") + `"`
		for name, h := range map[string]http.Header{
			"listed": {xForwardedFor: {spelled}}, "listed, quoted": {xForwardedFor: {quoted}},
			"described, bare": {forwarded: {"for=" + spelled}}, "described": {forwarded: {"for=" + quoted}},
			"described in capitals": {forwarded: {"By=10.0.0.1;FOR=" + quoted + ";Proto=https"}},
			"described with space":  {forwarded: {"proto=https ; for=" + quoted + " ; host=\"a,b;for=x\""}},
			"both":                  {xForwardedFor: {spelled}, forwarded: {"for=" + quoted}},
		} {
			r := &http.Request{RemoteAddr: "10.0.0.1:4711", Header: h}
			if got := testProxies("auto").Address(r); got != want {
				t.Errorf("%q, %s: %q, want %q", spelled, name, got, want)
			}
		}
	}
}

// Forwarded counts as far as trusted proxies have written it.
func TestForwardedIsReadFromTheRight(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"a proxy passes on what a client says", []string{`for=198.51.100.66, for=198.51.100.7`}, "198.51.100.7"},
		{"in several lines", []string{`for=198.51.100.66`, `for=198.51.100.7`}, "198.51.100.7"},
		{"two proxies", []string{`for=198.51.100.66, for="[2001:db8:1::7]:4711";proto=https, for=10.9.9.9;by="[2001:db8::9]:80"`}, "2001:db8:1::7"},
		{"nobody but proxies", []string{`for=10.0.0.3,for=10.0.0.2`}, "10.0.0.3"},
		{"empty elements", []string{`, ,for=198.51.100.7 ,, `, ``, ` , `}, "198.51.100.7"},
		{"a hidden client of a proxy", []string{`for=198.51.100.66, for=_gazonk, for=10.0.0.2`}, "10.0.0.2"},
		{"a proxy says nothing of the client", []string{`for=198.51.100.66, by=10.0.0.2;proto=http`}, "10.0.0.1"},
		{"two for", []string{`for=198.51.100.66;for=198.51.100.7`}, "10.0.0.1"},
		{"a client opens a quotation", []string{`for=198.51.100.66;x=", for=198.51.100.7;host="a,b"`}, "198.51.100.7"},
		{"a client opens a quotation and escapes", []string{`for=198.51.100.66;x="\`, `for="198.51.100.7"`}, "198.51.100.7"},
		{"escapes", []string{`for="\1\98.51.100.7";x="\", for=198.51.100.66;y=\""`}, "198.51.100.7"},
		{"a list inside a quotation", []string{`host="x, for=198.51.100.66";for=198.51.100.7`}, "198.51.100.7"},
		{"an address in another place", []string{`xfor=198.51.100.66;by=198.51.100.66;for=198.51.100.7`}, "198.51.100.7"},
		{"no pair", []string{`198.51.100.66`}, "10.0.0.1"},
		{"a quotation without an end", []string{`for="198.51.100.66`}, "10.0.0.1"},
		{"text after a quotation", []string{`for="198.51.100.66"x`}, "10.0.0.1"},
	} {
		for _, header := range []string{"auto", forwarded} {
			r := &http.Request{RemoteAddr: "10.0.0.1:4711", Header: http.Header{forwarded: c.lines}}
			if got := testProxies(header).Address(r); got != c.want {
				t.Errorf("%s (%s): the client is %q, want %q", c.name, header, got, c.want)
			}
		}
	}
}

// The header that the proxy does not write is what the client wrote. It is believed when the
// operator has named the other one in no case, and otherwise never against the other one.
func TestTheHeaderThatAClientWrote(t *testing.T) {
	for _, c := range []struct{ header, listed, described, want string }{
		{"auto", "198.51.100.7", "for=198.51.100.66", "10.0.0.1"},
		{"auto", "198.51.100.7", "for=198.51.100.7", "198.51.100.7"},
		{"auto", "198.51.100.7", "for=unknown", "10.0.0.1"},
		{"auto", "198.51.100.7", ", ", "198.51.100.7"},
		{"auto", " ,", "for=198.51.100.7", "198.51.100.7"},
		{"X-Forwarded-For", "198.51.100.7", "for=198.51.100.66", "198.51.100.7"},
		{"X-Forwarded-For", "", "for=198.51.100.66", "10.0.0.1"},
		{"Forwarded", "198.51.100.66", "for=198.51.100.7", "198.51.100.7"},
		{"Forwarded", "198.51.100.66", "", "10.0.0.1"},
	} {
		r := &http.Request{RemoteAddr: "10.0.0.1:4711", Header: http.Header{xForwardedFor: {c.listed}, forwarded: {c.described}}}
		if got := testProxies(c.header).Address(r); got != c.want {
			t.Errorf("%+v: the client is %q", c, got)
		}
		r.RemoteAddr = "192.0.2.1:4711"
		if got := testProxies(c.header).Address(r); got != "192.0.2.1" {
			t.Errorf("%+v, from the client itself: the client is %q", c, got)
		}
	}
}

// FuzzForwarded: whatever a client writes, the address that the proxy adds counts, in either
// header, in the same line or in one of its own.
func FuzzForwarded(f *testing.F) {
	for _, seed := range []string{
		"", "198.51.100.66", `for=198.51.100.66`, `for="`, `for="198.51.100.66`, `x="\`, `\"`, `"`, `,`, `for=10.0.0.2`, `for=198.51.100.66;x=",`,
		"[", "unknown", "_a", `for="[2001:db8:1::66]:1", for=10.0.0.2;by="`, "10.0.0.9, 10.0.0.8",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, client string) {
		for _, c := range []struct{ name, added string }{
			{xForwardedFor, "198.51.100.7"}, {xForwardedFor, "198.51.100.7:51234"}, {xForwardedFor, "[2001:db8:1::7]:443"},
			{forwarded, `for=198.51.100.7`}, {forwarded, `for="198.51.100.7:51234";proto=https`}, {forwarded, `by="[2001:db8::2]";For="[2001:db8:1::7]:443";host="a,b"`},
		} {
			want := "198.51.100.7"
			if strings.Contains(c.added, "2001:db8:1::7") {
				want = "2001:db8:1::7"
			}
			for _, lines := range [][]string{{client + ", " + c.added}, {client + "," + c.added}, {client, c.added}} {
				for _, header := range []string{"auto", c.name} {
					r := &http.Request{RemoteAddr: "10.0.0.1:4711", Header: http.Header{c.name: lines}}
					if got := testProxies(header).Address(r); got != want {
						t.Errorf("%s: %q: the client is %q, want %q", c.name, lines, got, want)
					}
				}
			}
		}
	})
}
