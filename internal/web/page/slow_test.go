package page

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A form that does not come in time is answered with a page that says so.
func TestSlowFormIsAnswered(t *testing.T) {
	k := newKit(t, nil)
	k.Post("/account", Anybody, func(*Visit) error {
		t.Error("the form is taken")
		return nil
	})
	mux := http.NewServeMux()
	k.Mount(mux)
	server := httptest.NewUnstartedServer(mux)
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /account HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\na=")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout || resp.ContentLength == 0 {
		t.Errorf("%s with %d bytes", resp.Status, resp.ContentLength)
	}
}
