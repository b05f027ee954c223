package httpkit

import (
	"net/http"
	"net/netip"
	"testing"
)

// X-Forwarded-For counts as far as trusted proxies have written it.
func TestForwardedForIsBelievedFromProxiesAlone(t *testing.T) {
	proxies := Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/64")}
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
		{"a port", "10.0.0.1:4711", []string{"198.51.100.7:80"}, "10.0.0.1"},
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
