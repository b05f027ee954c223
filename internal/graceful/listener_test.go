package graceful

import (
	"errors"
	"net"
	"net/http"
	"testing"
	"time"
)

// A client that has connected is accepted before the listener ends, also when the time for
// that has passed while the process stood still.
func TestListenerAcceptsWhoHasConnected(t *testing.T) {
	tcp, err := listenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	client, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	l := newListener(tcp)
	l.stop()
	l.until = time.Now().Add(-time.Minute)
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted.Close()
	if accepted, err := l.Accept(); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("%v, %v: the listener has not ended", accepted, err)
	}
}

// Once the listener is stopping the kernel takes no new connection, and those that it has
// taken before still work.
func TestRefuse(t *testing.T) {
	tcp, err := listenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	before, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	l := newListener(tcp)
	l.stop()
	if after, err := net.DialTimeout("tcp", tcp.Addr().String(), 100*time.Millisecond); err == nil {
		after.Close()
		t.Error("a new connection was made")
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if _, err := before.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = accepted.SetReadDeadline(time.Now().Add(patience))
	if _, err := accepted.Read(make([]byte, 1)); err != nil {
		t.Errorf("a connection that was there does not work any more: %v", err)
	}
}
