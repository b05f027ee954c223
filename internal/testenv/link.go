package testenv

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
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

// A Link is the network between two parts: it passes on what it receives on Addr,
// unless a Fault is set.
type Link struct {
	Addr string // host:port

	listener net.Listener
	running  sync.WaitGroup
	asked    atomic.Int64

	mu      sync.Mutex
	target  string
	fault   Fault
	changed chan struct{} // closed when fault is set
	conns   map[net.Conn]bool
	closed  bool
}

// NewLink makes a Link to a TCP address for this test.
func NewLink(t testing.TB, target string) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{Addr: listener.Addr().String(), target: target, listener: listener, changed: make(chan struct{}), conns: map[net.Conn]bool{}}
	l.running.Go(l.accept)
	t.Cleanup(l.close)
	return l
}

// Asked returns how often something was sent up. To a server that is asked one thing after the
// other, these are the round trips.
func (l *Link) Asked() int64 { return l.asked.Load() }

// Lead has the Link lead to another address, from the next connection on.
func (l *Link) Lead(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
}

// Set replaces the fault that there is; the zero Fault heals.
func (l *Link) Set(f Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.fault = f
	close(l.changed)
	l.changed = make(chan struct{})
	if f.Cut {
		l.reset()
	}
}

func (l *Link) close() {
	l.mu.Lock()
	l.closed = true
	close(l.changed)
	l.listener.Close()
	l.reset()
	l.mu.Unlock()
	l.running.Wait()
}

// reset ends all connections as a lost network does. The caller holds mu.
func (l *Link) reset() {
	for c := range l.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	clear(l.conns)
}

func (l *Link) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		if l.hold(c) {
			l.running.Go(func() { l.serve(c) })
		}
	}
}

// hold notes a connection, or resets it if it must not be.
func (l *Link) hold(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = true
	if l.closed || l.fault.Cut {
		l.reset()
		return false
	}
	return true
}

func (l *Link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.Close()
}

func (l *Link) serve(client net.Conn) {
	defer l.drop(client)
	l.mu.Lock()
	target := l.target
	l.mu.Unlock()
	server, err := net.DialTimeout("tcp", target, startTime)
	if err != nil {
		_ = client.(*net.TCPConn).SetLinger(0) // refused
		return
	}
	defer l.drop(server)
	if !l.hold(server) {
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() { l.pump(server, client, &l.asked, func(f Fault) bool { return f.HoldUp }) })
	pumps.Go(func() { l.pump(client, server, new(atomic.Int64), func(f Fault) bool { return f.HoldDown }) })
	pumps.Wait()
}

// pump copies one direction until its end, which it passes on, and counts how often there was
// something.
func (l *Link) pump(to, from net.Conn, count *atomic.Int64, held func(Fault) bool) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		l.pass(held)
		if n > 0 {
			count.Add(1)
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
func (l *Link) pass(held func(Fault) bool) {
	for {
		l.mu.Lock()
		f, changed, closed := l.fault, l.changed, l.closed
		l.mu.Unlock()
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
