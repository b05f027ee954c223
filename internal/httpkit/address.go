package httpkit

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/login"
)

// The headers in which proxies say where a request came from.
const (
	xForwardedFor = "X-Forwarded-For"
	forwarded     = "Forwarded" // RFC 7239
)

// Proxies are believed about where a request came from.
type Proxies struct {
	// Trusted are the addresses of the proxies. From any other address their headers are
	// ignored, because the client can write them.
	Trusted []netip.Prefix
	// Header is the one that they set: X-Forwarded-For or Forwarded. Any other value means
	// that this is not known.
	Header string
}

// Address returns the client's address. It is the address of the connection, or, as long as
// a trusted proxy has written the right end of the header, the address that stands there.
//
// A proxy passes on the header that it does not set, as the client wrote it. So when it is
// not known which one it sets, and the two name different clients, neither is believed, and
// the address is that of the connection.
func (p Proxies) Address(r *http.Request) string {
	address, ok := peerOf(r)
	if !ok {
		return "" // not a network connection, as in a test
	}
	if !p.trusts(address) {
		return address.String()
	}
	listed, ofListed := follow(p, address, r.Header[xForwardedFor], lastListed, node)
	described, ofDescribed := follow(p, address, r.Header[forwarded], lastDescribed, forNode)
	switch {
	case p.Header == xForwardedFor, p.Header != forwarded && !ofDescribed:
		address = listed
	case p.Header == forwarded, !ofListed, listed == described:
		address = described
	}
	return address.String()
}

// peerOf returns the address of a request's connection, without a zone: no network that is
// trusted has one.
func peerOf(r *http.Request) (netip.Addr, bool) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr().Unmap().WithZone(""), err == nil
}

// Network returns the name under which the requests under way from an address are counted,
// which is that of package limit. It is empty for this machine, whose address is a proxy's.
func Network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil || a.IsLoopback() {
		return ""
	}
	return limit.Block(address)
}

// follow goes through a header's elements from the right, each of which was written by the
// hop to its right, the first one by the peer. It returns the address of the first hop that
// is not trusted, or before which there is nothing to be read, and reports whether the
// header has any element.
func follow(p Proxies, address netip.Addr, lines []string, last func(string) (rest, element string), read func(string) (netip.Addr, bool)) (_ netip.Addr, found bool) {
	for _, line := range slices.Backward(lines) {
		for line != "" {
			var element string
			line, element = last(line)
			if element = strings.Trim(element, " \t"); element == "" {
				continue // RFC 9110 §5.6.1.2
			}
			found = true
			hop, ok := read(element)
			if !ok {
				return address, found
			}
			if address = hop; !p.trusts(address) {
				return address, found
			}
		}
	}
	return address, found
}

func (p Proxies) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(p.Trusted, func(prefix netip.Prefix) bool { return prefix.Contains(a) })
}

// Client returns where a request came from.
func (p Proxies) Client(r *http.Request) login.Client {
	return login.Client{Address: p.Address(r), UserAgent: r.UserAgent()}
}

// lastListed cuts the last element off a list.
func lastListed(line string) (rest, element string) {
	i := strings.LastIndexByte(line, ',')
	return line[:max(i, 0)], line[i+1:]
}

// lastDescribed cuts the last element off a list whose elements may have commas in quoted
// strings. It reads from the right, where a proxy has written: what a client has put before
// that, as a quotation mark without a second one, changes nothing.
func lastDescribed(line string) (rest, element string) {
	quoted := false
	for i := len(line) - 1; i >= 0; i-- {
		switch line[i] {
		case '"':
			before := strings.TrimRight(line[:i], `\`)
			if escapes := i - len(before); escapes%2 == 0 {
				quoted = !quoted
			}
		case ',':
			if !quoted {
				return line[:i], line[i+1:]
			}
		}
	}
	return "", line
}

// forNode reads the node of the one "for" in an element of Forwarded (RFC 7239 §4).
func forNode(element string) (_ netip.Addr, ok bool) {
	var client string
	for rest := element; rest != ""; {
		var name, value string
		if name, value, rest, ok = cutPair(rest); !ok {
			return netip.Addr{}, false
		}
		if !strings.EqualFold(name, "for") {
			continue
		}
		if client != "" {
			return netip.Addr{}, false // of two, another reader may take the other
		}
		client = value
	}
	return node(client)
}

// cutPair cuts the first pair, name=value, off an element of Forwarded. Values with colons
// and brackets should be quoted, and are not by some proxies.
func cutPair(element string) (name, value, rest string, ok bool) {
	name, rest, ok = strings.Cut(element, "=")
	name = strings.Trim(name, "; \t")
	if !ok || name == "" || strings.ContainsAny(name, "; \t\"") {
		return "", "", "", false
	}
	if !strings.HasPrefix(rest, `"`) {
		value, rest, _ = strings.Cut(rest, ";")
		value = strings.Trim(value, " \t")
		return name, value, rest, !strings.Contains(value, `"`)
	}
	var text strings.Builder
	for i := 1; i < len(rest); i++ {
		switch {
		case rest[i] == '\\' && i+1 < len(rest):
			i++
		case rest[i] == '"':
			after := strings.TrimLeft(rest[i+1:], " \t")
			return name, text.String(), strings.TrimPrefix(after, ";"), after == "" || after[0] == ';'
		}
		text.WriteByte(rest[i])
	}
	return "", "", "", false
}

// node reads an address as proxies write it: RFC 7239 §6 with a port or none, also without
// the brackets of IPv6 and without or with quotation marks. A zone is left out, because it
// may be any text. "unknown" and names that hide an address are none.
func node(s string) (netip.Addr, bool) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if inside, ok := strings.CutPrefix(s, "["); ok {
		inside, port, ok := strings.Cut(inside, "]")
		a, isAddress := addressOf(inside)
		return a, ok && isAddress && strings.Contains(inside, ":") && (port == "" || port[0] == ':' && isNodePort(port[1:]))
	}
	if a, ok := addressOf(s); ok {
		return a, true
	}
	// Not an address as it stands, so what follows the last colon is a port. IPv6 without
	// brackets, shortened and with a port of four digits is read as an address of the same
	// network.
	i := strings.LastIndexByte(s, ':')
	if i < 0 || !isNodePort(s[i+1:]) {
		return netip.Addr{}, false
	}
	return addressOf(s[:i])
}

func addressOf(s string) (netip.Addr, bool) {
	s, _, _ = strings.Cut(s, "%")
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil
}

// isNodePort reports whether s is a number or a name that hides one (RFC 7239 §6.3).
func isNodePort(s string) bool {
	hidden := strings.HasPrefix(s, "_")
	for i := range len(s) {
		c := s[i]
		digit := c >= '0' && c <= '9'
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !digit && (!hidden || !letter && !strings.ContainsRune("._-", rune(c))) {
			return false
		}
	}
	return s != "" && (hidden || len(s) <= 5)
}
