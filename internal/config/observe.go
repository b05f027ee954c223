package config

import (
	"fmt"
	"net"
	"net/textproto"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

func (t *Traces) validate(v *validator) {
	if t.Endpoint != "" {
		if err := checkHTTPURL(t.Endpoint); err != nil {
			v.problem("telemetry.traces.endpoint", "%v", err)
		}
	}
	if _, err := t.Header(); err != nil {
		v.problem("telemetry.traces.headers", "%v", err)
	}
}

// URL returns where traces are sent, and "" if there are none.
func (t *Traces) URL() string {
	u, err := url.Parse(t.Endpoint)
	if err == nil && t.Endpoint != "" && strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces" // OTLP 1.11, "OTLP/HTTP Request"
		return u.String()
	}
	return t.Endpoint
}

// Header returns the headers that are sent along, by their names. Errors show nothing of
// their values.
func (t *Traces) Header() (map[string]string, error) {
	header := map[string]string{}
	for i, one := range t.Headers {
		name, value, found := strings.Cut(one, "=")
		name = textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !found || err != nil || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("number %d is not written as NAME=VALUE, with special characters of the value as %%XX", i+1)
		}
		header[name] = value
	}
	return header, nil
}

func (d *Debug) validate(v *validator) {
	if d.Address == "" {
		return
	}
	host, port, err := net.SplitHostPort(d.Address)
	switch {
	case err != nil || !isPort(port):
		v.problem("debug.address", "%q is not a host and a port, such as 127.0.0.1:6060", d.Address)
	case !isLoopback(host):
		v.problem("debug.address", "%q is reached from other machines, and profiles may have secrets in them; write 127.0.0.1:%s", d.Address, port)
	}
}
