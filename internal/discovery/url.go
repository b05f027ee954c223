package discovery

import (
	"net"
	"net/url"
	"strconv"
)

// base is the service's URL with another host and port.
func base(service *url.URL, host string, port uint16) string {
	u := url.URL{Scheme: service.Scheme, Host: net.JoinHostPort(host, strconv.Itoa(int(port))), Path: service.Path}
	return u.String()
}

// portOf is the URL's port, or that of its scheme.
func portOf(u *url.URL) uint16 {
	if p, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		return uint16(p)
	}
	if u.Scheme == "https" {
		return 443
	}
	return 80
}
