package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
)

// Bounds on how long a client may take, so that slow ones hold nothing up. The
// feed's streams set their own.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	// maxStreams is how many requests a connection of HTTP/2 may have under way:
	// enough for a browser or a proxy, which open another one for more, and few enough
	// that connections, which the system counts, stay the measure of what is held.
	maxStreams = 32
	// shutdownTimeout is how long requests that are under way may take to end
	// after the listener has closed.
	shutdownTimeout = 30 * time.Second
	// quietTime is for how long a client must have sent nothing before its
	// connection is closed under it: who has just connected, or has just been
	// answered, may be about to ask.
	quietTime = time.Second
	// lastCall is for how long nobody must have come before the listener closes:
	// more than a round trip, for those whose handshake is under way.
	lastCall = 250 * time.Millisecond
	// lastLook is how long a process takes at most, from when it runs again, to notice
	// what has come while it did not: time alone says nothing about its clients then.
	lastLook = 100 * time.Millisecond
	// maxLate is how many connections are let in that a last look finds, as many as
	// wait in a listener of the kernel's usual size: it is no end if more and more come.
	maxLate = 4096
)

// A door is the HTTP server in front of a node. It can be closed without dropping a
// request, as http.Server.Shutdown alone cannot: that resets connections that have
// not been accepted yet, and ends those on which a request has just arrived without
// an answer.
type door struct {
	front  *front
	gate   *gate
	census *census
	server *http.Server
	served chan error // gets one value, when nobody comes in any more
}

// openDoor listens, and says to all who come that the node is starting.
func openDoor(cfg *config.Config, logger *slog.Logger) (*door, error) {
	g, err := listen(cfg, logger)
	if err != nil {
		return nil, err
	}
	d := &door{front: newFront(), gate: g, census: &census{conns: map[net.Conn]presence{}}, served: make(chan error, 1)}
	d.server = newServer(d.front, logger)
	d.server.ConnState = d.census.note
	go func() { d.served <- d.server.Serve(g) }()
	return d, nil
}

// newServer makes the server, with its bounds.
func newServer(h http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// slam closes the door whoever stands in it.
func (d *door) slam() error { return d.server.Close() }

// close answers everybody who has connected, and lets nobody else in.
func (d *door) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	d.gate.shut()
	<-d.served
	d.census.wait(ctx)
	if err := d.server.Shutdown(ctx); err != nil {
		return fmt.Errorf("some requests did not end within %v: %w", shutdownTimeout, err)
	}
	return nil
}

// A gate is a listener that can be shut without dropping those who have connected
// and not been accepted yet: closing a listener resets them.
type gate struct {
	net.Listener // of visitors, or TLS on them
	tcp          *net.TCPListener
	until        time.Time   // the latest end of shutting; set before shutting is
	refusing     atomic.Bool // no new ones come; see refuse
	shutting     atomic.Bool // those that are there are let in
	late         int         // how many were found by a last look; of Accept, which http.Server calls one by one
}

// newGate makes a gate. Whoever puts TLS on it puts that into Listener.
func newGate(tcp *net.TCPListener) *gate {
	g := &gate{tcp: tcp}
	g.Listener = &entrance{tcp, g}
	return g
}

// shut makes Accept let in whoever has connected already and then end with
// http.ErrServerClosed, on which http.Server closes the listener.
func (g *gate) shut() {
	g.refusing.Store(true)
	refuse(g.tcp)
	g.until = time.Now().Add(4 * lastCall)
	// Accept wakes up. From shutting on the deadline is Accept's own.
	_ = g.tcp.SetDeadline(time.Now()) // fails only on a closed listener, which has what is wanted
	g.shutting.Store(true)
}

func (g *gate) Accept() (net.Conn, error) {
	for last := false; ; {
		shutting := g.shutting.Load()
		if shutting {
			deadline := time.Now().Add(lastCall)
			if deadline.After(g.until) {
				deadline = g.until
			}
			if last {
				deadline = time.Now().Add(lastLook)
			}
			_ = g.tcp.SetDeadline(deadline) // as in shut
		}
		conn, err := g.Listener.Accept()
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
			if last {
				g.late++
			}
			return conn, err
		case shutting && (last || g.late >= maxLate):
			return nil, http.ErrServerClosed
		case shutting:
			last = true
		}
	}
}

// An entrance makes visitors of those who connect.
type entrance struct {
	*net.TCPListener
	gate *gate
}

func (e *entrance) Accept() (net.Conn, error) {
	conn, err := e.AcceptTCP()
	if err != nil {
		return nil, err
	}
	if e.gate.refusing.Load() {
		admit(conn)
	}
	return &visitor{Conn: conn}, nil
}

// A visitor is a connection of which is known when something last came.
type visitor struct {
	net.Conn
	heard atomic.Int64 // Unix time, ns; 0: nothing yet
}

func (v *visitor) Read(p []byte) (int, error) {
	n, err := v.Conn.Read(p)
	if n > 0 {
		v.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

// lastHeard is when something last came on a connection that a gate has let in.
func lastHeard(conn net.Conn) time.Time {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	return time.Unix(0, conn.(*visitor).heard.Load())
}

// A census knows every connection and what it has been doing since when.
type census struct {
	mu    sync.Mutex
	conns map[net.Conn]presence
}

type presence struct {
	state http.ConnState
	since time.Time
}

// note is the http.Server's ConnState.
func (c *census) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(c.conns, conn)
		return
	}
	c.conns[conn] = presence{state, time.Now()}
}

// wait returns when every connection has closed or has waited for its client for
// quietTime and still does after a last look, or ctx ends. It closes those on which nothing was ever sent, for which
// http.Server.Shutdown would wait longer, only to answer nothing either.
func (c *census) wait(ctx context.Context) {
	const every = 5 * time.Millisecond
	tick := time.NewTicker(every) // which makes up for nothing that was missed
	defer tick.Stop()
	for looks := 0; looks < int(lastLook/every); {
		if looks++; !c.quiet() {
			looks = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, p := range c.conns {
		if p.state == http.StateNew {
			_ = conn.Close() // its client may have closed it: just as well
		}
	}
}

func (c *census) quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn, p := range c.conns {
		// Part of a request changes no state yet.
		if p.state == http.StateActive || time.Since(p.since) < quietTime || time.Since(lastHeard(conn)) < quietTime {
			return false
		}
	}
	return true
}
