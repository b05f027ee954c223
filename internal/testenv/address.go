package testenv

import (
	"net"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Address is a host:port at which the test, or a process of its own, listens later. It
// is kept for that: a port that was merely free a moment ago may be given to any other
// socket of the machine meanwhile. Who connects before somebody listens is refused.
func Address(t testing.TB) string {
	t.Helper()
	fd, addr := keepAddress(t)
	t.Cleanup(func() { _ = unix.Close(fd) }) // nothing is written to it
	return addr
}

// keepAddress keeps an address with a socket that is bound and does not listen, until
// that is closed. Beside it, Linux lets another one be bound to the port by name if both
// have SO_REUSEADDR, as servers' have, and gives the port to no process that asks for any free one.
func keepAddress(t testing.TB) (fd int, addr string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*unix.SockaddrInet4).Port))
}
