package graceful

import (
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

const (
	// acceptQuiet is how long no client must have connected before the listener closes.
	// It is longer than a round trip, so that handshakes under way end.
	acceptQuiet = 250 * time.Millisecond
	// afterPause is how long the process looks again after a time-out. While the
	// machine or the process stood still, time passed and clients connected: the time
	// alone does not say that nobody came.
	afterPause = 100 * time.Millisecond
	// maxLate bounds how many connections are accepted after a time-out, by the usual
	// length of the kernel's queue. Without a bound a flood of clients would keep the
	// listener open.
	maxLate = 4096
)

// A listener stops without dropping clients that have connected and have not been
// accepted yet. Closing a net.Listener resets them.
type listener struct {
	net.Listener // gives *conn, or TLS on it
	tcp          *net.TCPListener
	until        time.Time   // when stopping ends at the latest; set before stopping
	refusing     atomic.Bool // the kernel refuses new connections; see refuse
	stopping     atomic.Bool // Accept returns those that wait, and then ends
	late         int         // connections accepted after a time-out; only Accept uses it, and http.Server calls that one call at a time
}

// newListener makes a listener on tcp. For TLS the caller wraps its field Listener.
func newListener(tcp *net.TCPListener) *listener {
	l := &listener{tcp: tcp}
	l.Listener = &acceptor{tcp, l}
	return l
}

// stop makes Accept return the connections that wait and then end with
// http.ErrServerClosed, on which http.Server closes the listener.
func (l *listener) stop() {
	l.refusing.Store(true)
	refuse(l.tcp)
	l.until = time.Now().Add(4 * acceptQuiet)
	// This wakes Accept. Once stopping is set, only Accept sets the deadline. The call
	// fails only on a closed listener, on which there is nothing to stop.
	_ = l.tcp.SetDeadline(time.Now())
	l.stopping.Store(true)
}

func (l *listener) Accept() (net.Conn, error) {
	for last := false; ; {
		stopping := l.stopping.Load()
		if stopping {
			deadline := time.Now().Add(acceptQuiet)
			if deadline.After(l.until) {
				deadline = l.until
			}
			if last {
				deadline = time.Now().Add(afterPause)
			}
			_ = l.tcp.SetDeadline(deadline) // as in stop
		}
		c, err := l.Listener.Accept()
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded):
			if last {
				l.late++
			}
			return c, err
		case stopping && (last || l.late >= maxLate):
			return nil, http.ErrServerClosed
		case stopping:
			last = true
		}
	}
}

// An acceptor gives *conn instead of *net.TCPConn.
type acceptor struct {
	*net.TCPListener
	listener *listener
}

func (a *acceptor) Accept() (net.Conn, error) {
	tcp, err := a.AcceptTCP()
	if err != nil {
		return nil, err
	}
	if a.listener.refusing.Load() {
		admit(tcp)
	}
	return &conn{Conn: tcp}, nil
}
