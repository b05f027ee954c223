package graceful

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// quietTime is how long a client must have sent nothing before the server closes its
// connection. A client that has just connected, or has just been answered, may be about
// to send a request.
const quietTime = time.Second

// A conn is a connection that remembers when its client last sent something.
type conn struct {
	net.Conn
	received atomic.Int64 // Unix time in nanoseconds; 0: nothing yet
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.received.Store(time.Now().UnixNano())
	}
	return n, err
}

// lastReceived returns when something last came on a connection of a listener.
func lastReceived(c net.Conn) time.Time {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return time.Unix(0, c.(*conn).received.Load())
}

// connections are all connections of a server, each with its state and the time since
// when it has been in that state.
type connections struct {
	mu    sync.Mutex
	state map[net.Conn]connState
}

type connState struct {
	state http.ConnState
	since time.Time
}

func newConnections() *connections { return &connections{state: map[net.Conn]connState{}} }

// note is the http.Server's ConnState.
func (cs *connections) note(c net.Conn, state http.ConnState) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(cs.state, c)
		return
	}
	cs.state[c] = connState{state, time.Now()}
}

// waitUntilQuiet returns when every connection has closed or is quiet, and has been for
// afterPause of this process's own time, or when ctx ends. It closes the connections on which
// nothing was ever sent: http.Server.Shutdown would wait longer for them, and answer
// nothing either.
func (cs *connections) waitUntilQuiet(ctx context.Context) {
	const every = 5 * time.Millisecond
	tick := time.NewTicker(every) // it does not make up for ticks that were missed
	defer tick.Stop()
	for looks := 0; looks < int(afterPause/every); {
		if looks++; !cs.quiet() {
			looks = 0
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c, s := range cs.state {
		if s.state == http.StateNew {
			_ = c.Close() // the client may have closed it already
		}
	}
}

// quiet reports whether no request is under way and no client has sent anything for
// quietTime.
func (cs *connections) quiet() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c, s := range cs.state {
		// Part of a request does not change the state yet, so the bytes count, too.
		if s.state == http.StateActive || time.Since(s.since) < quietTime || time.Since(lastReceived(c)) < quietTime {
			return false
		}
	}
	return true
}
