package tiered_test

import (
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"time"
)

// A proxy stands between a replica and a real server.
type proxy struct {
	target string
	mode   atomic.Int32
	spare  atomic.Int32 // how many requests, or answers, pass before the mode ends a connection
}

const (
	pass    int32 = iota
	refuse        // the connection ends at the next request, of which the server sees nothing
	swallow       // the server gets the request; the connection ends at its answer
	slow          // answers come two seconds late
)

// through returns a proxy to the server of a URL, and the URL with the proxy in
// its place.
func through(t *testing.T, text string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(text)
	check(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	p := &proxy{target: u.Host}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	u.Host = l.Addr().String()
	return p, u.String()
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		defer client.Close()
		defer server.Close()
		p.carry(server, client, refuse)
	}()
	p.carry(client, server, swallow)
}

// carry copies until a connection ends, or until it meets the mode that ends it.
func (p *proxy) carry(to, from net.Conn, ends int32) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		switch mode := p.mode.Load(); {
		case err != nil, mode == ends && p.spare.Add(-1) < 0:
			return
		case mode == slow && ends == swallow:
			pause(2 * time.Second)
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}
