package httpkit

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/limit"
)

// blockOf returns what is counted for a request from a peer with headers.
func blockOf(p Proxies, peer string, h http.Header) string {
	return limit.Block(p.Address(&http.Request{RemoteAddr: peer, Header: h}))
}

// However a proxy, or the connection, spells the address of a client, one block is counted: an
// address of IPv4, also one that is written as one of IPv6, and a /64 of IPv6.
func TestOneClientIsOneBlock(t *testing.T) {
	blocks := map[string]string{}
	for client, spellings := range map[string][]string{
		"IPv4": {
			"198.51.100.7", "198.51.100.7:51234", "::ffff:198.51.100.7", "::FFFF:198.51.100.7", "::ffff:c633:6407", "::FfFf:C633:6407", "0:0:0:0:0:ffff:c633:6407",
			"0000:0000:0000:0000:0000:ffff:c633:6407", "0:0:0:0:0:FFFF:198.51.100.7", "0::ffff:c633:6407", "[::ffff:198.51.100.7]", "[::ffff:c633:6407]:443",
			"::ffff:198.51.100.7%eth0", "[::ffff:c633:6407%1]:443", "::ffff:198.51.100.7:443",
		},
		"IPv6": {
			"2001:db8:1:2::7", "2001:DB8:1:2::7", "2001:db8:1:2:0:0:0:7", "2001:0db8:0001:0002:0000:0000:0000:0007", "2001:db8:1:2::0.0.0.7", "[2001:db8:1:2::7]",
			"[2001:db8:1:2::7]:443", "[2001:DB8:1:2::7%eth0]:443", "2001:db8:1:2::7%25eth0", "2001:db8:1:2::", "2001:db8:1:2::8", "2001:db8:1:2:ffff:ffff:ffff:ffff",
			"2001:db8:1:2::198.51.100.7", "2001:db8:1:2::7:443",
		},
		"the next IPv4": {"198.51.100.8", "::ffff:c633:6408"},
		"the next /64":  {"2001:db8:1:3::7", "2001:db8:1:3:0:0:0:7"},
		"link-local":    {"fe80::1", "fe80::1%eth0", "fe80::1%eth1", "[fe80::1%25eth0]:80", "fe80::2"},
	} {
		for _, spelled := range spellings {
			requests := map[string]string{
				"X-Forwarded-For": blockOf(testProxies("auto"), "10.0.0.1:4711", http.Header{xForwardedFor: {"203.0.113.9, " + spelled}}),
				"Forwarded":       blockOf(testProxies("auto"), "10.0.0.1:4711", http.Header{forwarded: {`for=203.0.113.9, for="` + spelled + `"`}}),
			}
			if a, err := netip.ParseAddr(strings.Trim(spelled, "[]")); err == nil { // as a connection has it
				requests["the connection"] = blockOf(Proxies{}, netip.AddrPortFrom(a, 4711).String(), nil)
			}
			for where, got := range requests {
				if blocks[client] == "" {
					blocks[client] = got
				}
				if got != blocks[client] {
					t.Errorf("%s, %s as %s: %s, and otherwise %s", client, where, spelled, got, blocks[client])
				}
			}
		}
	}
	of := map[string]string{}
	for client, block := range blocks {
		if other := of[block]; other != "" || block == limit.Block("") {
			t.Errorf("%s and %s are one: %s", client, other, block)
		}
		of[block] = client
	}
}

// Whatever stands in the headers, what is counted is an address that a trusted proxy has named,
// or that of the connection.
func TestBadInputIsCountedForTheHopThatSentIt(t *testing.T) {
	hops := func(n int, address string) string { return strings.TrimSuffix(strings.Repeat(address+", ", n), ", ") }
	lines := func(n int, line string) (all []string) {
		for range n {
			all = append(all, line)
		}
		return all
	}
	const proxy, client = "10.0.0.1", "198.51.100.7"
	for _, c := range []struct {
		name, want string
		lines      []string // of X-Forwarded-For
	}{
		{"50 hops", client, []string{hops(49, "203.0.113.9") + ", " + client}},
		{"50 trusted hops", client, []string{"203.0.113.9, " + client + ", " + hops(50, "10.0.0.2")}},
		{"50 trusted hops and nothing before", "10.0.0.2", []string{hops(50, "10.0.0.2")}},
		{"50 lines", client, append(lines(49, "203.0.113.9"), client)},
		{"50 lines of trusted hops", client, append([]string{"203.0.113.9", client}, lines(50, "10.0.0.2, 10.0.0.3")...)},
		{"50 hops of garbage", client, []string{hops(49, "\x7f;'\"%&") + ", " + client}},
		{"garbage at the end", proxy, []string{client + ", \x7f;'\"%&"}},
		{"garbage before a trusted hop", "10.0.0.2", []string{client + ", \x7f, 10.0.0.2"}},
		{"an empty header", proxy, []string{""}},
		{"blanks and commas", proxy, []string{" , ,\t,"}},
		{"an empty last element", client, []string{client + ", "}},
		{"unknown", proxy, []string{client + ", unknown"}},
		{"obfuscated", proxy, []string{client + ", _hidden"}},
		{"obfuscated, as in RFC 7239", proxy, []string{client + ", _SEVKISEK"}},
		{"a list with semicolons", proxy, []string{client + "; 203.0.113.9"}},
		{"a long element", proxy, []string{client + ", " + strings.Repeat("1", 20_000)}},
	} {
		if got := blockOf(testProxies("auto"), proxy+":4711", http.Header{xForwardedFor: c.lines}); got != limit.Block(c.want) {
			t.Errorf("%s: %s is counted, want %s", c.name, got, limit.Block(c.want))
		}
		if got := blockOf(testProxies("auto"), "192.0.2.1:4711", http.Header{xForwardedFor: c.lines}); got != limit.Block("192.0.2.1") {
			t.Errorf("%s, from a peer that is not trusted: %s is counted", c.name, got)
		}
		described := http.Header{}
		for _, line := range c.lines {
			var all []string
			for element := range strings.SplitSeq(line, ",") {
				if element = strings.TrimSpace(element); element != "" {
					element = "for=" + element
				}
				all = append(all, element)
			}
			described[forwarded] = append(described[forwarded], strings.Join(all, ", "))
		}
		if c.name == "a list with semicolons" || strings.Contains(c.name, "garbage") {
			continue // of another grammar
		}
		if got := blockOf(testProxies("auto"), proxy+":4711", described); got != limit.Block(c.want) {
			t.Errorf("%s, described: %s is counted, want %s", c.name, got, limit.Block(c.want))
		}
	}
}

// A proxy on the same link is trusted although its connection has a zone.
func TestATrustedProxyWithAZone(t *testing.T) {
	proxies := Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("fe80::/10")}, Header: "auto"}
	r := &http.Request{RemoteAddr: "[fe80::1%eth0]:4711", Header: http.Header{xForwardedFor: {"198.51.100.7"}}}
	if got := proxies.Address(r); got != "198.51.100.7" {
		t.Errorf("the client is %q", got)
	}
	r.Header = nil
	if got := proxies.Address(r); got != "fe80::1" {
		t.Errorf("the proxy itself is %q", got)
	}
}
