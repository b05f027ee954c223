package cluster

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Clients that were closed hold no connection to a peer.
func TestClientsEnd(t *testing.T) {
	states := make(chan http.ConnState, 16)
	peer := httptest.NewUnstartedServer(http.NotFoundHandler())
	peer.Config.ConnState = func(_ net.Conn, s http.ConnState) { states <- s }
	peer.Start()
	defer peer.Close()
	clients, err := NewClients(ClientConfig{})
	if err != nil {
		t.Fatal(err)
	}
	res, err := clients.Get("").Get(peer.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body) // else it is not kept
	res.Body.Close()
	for _, want := range []http.ConnState{http.StateNew, http.StateActive, http.StateIdle} {
		if got := <-states; got != want {
			t.Fatalf("the connection is %v, not %v", got, want)
		}
	}
	clients.Close()
	select {
	case got := <-states:
		if got != http.StateClosed {
			t.Errorf("the connection is %v", got)
		}
	case <-time.After(time.Minute):
		t.Error("the connection stays")
	}
}
