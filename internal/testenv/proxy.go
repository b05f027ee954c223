package testenv

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A Fault is what is wrong with the network between two parts. The zero value is
// a good network. Up is from who connects to who is connected to.
type Fault struct {
	// Cut resets every connection, and each new one.
	Cut bool
	// HoldUp and HoldDown let nothing through in that direction. What was sent
	// arrives when the fault is over, as with packets that are sent again. Both:
	// connections are accepted and never answered.
	HoldUp, HoldDown bool
	// Delay is added each time that something is sent, in both directions.
	Delay time.Duration
}

// A Proxy is the network between two parts: it passes on what it receives on
// Addr, unless a Fault is set.
type Proxy struct {
	Addr string // host:port

	target   string
	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	fault   Fault
	changed chan struct{} // closed when fault is set
	conns   map[net.Conn]bool
	closed  bool
}

// NewProxy starts a Proxy in front of a TCP address for this test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, listener: l, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	p.running.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Set replaces the fault that there is; the zero Fault heals.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	if f.Cut {
		p.reset()
	}
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	close(p.changed)
	p.listener.Close()
	p.reset()
	p.mu.Unlock()
	p.running.Wait()
}

// reset ends all connections as a lost network does. The caller holds mu.
func (p *Proxy) reset() {
	for c := range p.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	clear(p.conns)
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.hold(c) {
			p.running.Go(func() { p.serve(c) })
		}
	}
}

// hold notes a connection, or resets it if it must not be.
func (p *Proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = true
	if p.closed || p.fault.Cut {
		p.reset()
		return false
	}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	c.Close()
}

func (p *Proxy) serve(client net.Conn) {
	defer p.drop(client)
	server, err := net.DialTimeout("tcp", p.target, 5*time.Second)
	if err != nil {
		_ = client.(*net.TCPConn).SetLinger(0) // refused
		return
	}
	defer p.drop(server)
	if !p.hold(server) {
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(server, client, func(f Fault) bool { return f.HoldUp }) })
	pumps.Go(func() { p.pump(client, server, func(f Fault) bool { return f.HoldDown }) })
	pumps.Wait()
}

// pump copies one direction until its end, which it passes on.
func (p *Proxy) pump(to, from net.Conn, held func(Fault) bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.pass(held)
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				_ = from.(*net.TCPConn).SetLinger(0)
				from.Close()
				return
			}
		}
		if err == io.EOF {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
		if err != nil {
			_ = to.(*net.TCPConn).SetLinger(0)
			to.Close()
			return
		}
	}
}

// pass waits as long as the direction is held, and for the delay.
func (p *Proxy) pass(held func(Fault) bool) {
	for {
		p.mu.Lock()
		f, changed, closed := p.fault, p.changed, p.closed
		p.mu.Unlock()
		if closed || f.Cut {
			return
		}
		if held(f) {
			<-changed
			continue
		}
		if f.Delay > 0 {
			select {
			case <-time.After(f.Delay):
			case <-changed:
			}
		}
		return
	}
}
