package app

import (
	"errors"
	"net"
	"net/http"
	"testing"
	"time"
)

// Who has connected is let in before the gate is shut, also when the time for that has
// passed while the process did not run.
func TestGateLetsInWhoIsThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	g := newGate(l.(*net.TCPListener))
	g.shut()
	g.until = time.Now().Add(-time.Minute)
	conn, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if conn, err := g.Accept(); !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("%v, %v: the gate is open", conn, err)
	}
}
