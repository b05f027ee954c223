package doctor

import (
	"net"
	"net/url"
	"slices"
	"strings"
)

// networkHosts returns the hosts that the URL of a backend names, each once, but for this machine
// itself, of which packets do not leave it. A name is one of the network, even if it should resolve
// to this machine; a path is that of a Unix socket.
func networkHosts(text string) (hosts []string) {
	for _, host := range urlHosts(text) {
		if host != "" && !strings.HasPrefix(host, "/") && !isLocal(host) && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// urlHosts returns the hosts that the URL of a backend names. Several follow each other after
// commas, or in parameters named addr or host.
func urlHosts(text string) []string {
	_, rest, _ := strings.Cut(text, "://")
	rest, query, _ := strings.Cut(rest, "?")
	authority, _, _ := strings.Cut(rest, "/")
	hosts := strings.Split(authority[strings.LastIndexByte(authority, '@')+1:], ",")
	if values, err := url.ParseQuery(query); err == nil {
		for _, name := range []string{"addr", "host"} {
			for _, v := range values[name] {
				hosts = append(hosts, strings.Split(v, ",")...)
			}
		}
	}
	for i, host := range hosts {
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		hosts[i] = strings.Trim(host, "[]")
	}
	return hosts
}

// parameter returns a parameter of a URL, which package url need not be able to read: it may
// have several hosts.
func parameter(text, name string) string {
	_, query, _ := strings.Cut(text, "?")
	values, _ := url.ParseQuery(query)
	return values.Get(name)
}
