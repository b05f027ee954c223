package graceful

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// refuse makes the kernel drop the packet (SYN) with which a client opens a new
// connection, so that no client connects between the last Accept and Close, to be reset
// by Close. Handshakes under way end. A client whose packet is dropped sends it again
// after a second, and meets a closed port or the next process that listens there.
//
// It asks the kernel for packets with a TTL of 255 only (RFC 5082): packets that have
// passed no router and whose sender has chosen that TTL. Usual systems begin with 64 or
// 128. A packet filter would be exact, but newer kernels let only root set one.
func refuse(l *net.TCPListener) { setLeastTTL(l, 255) }

// admit has the kernel take all packets of a connection that was accepted after refuse:
// it has inherited the listener's setting.
func admit(c *net.TCPConn) { setLeastTTL(c, 0) }

// setLeastTTL sets the bound for IPv4 and IPv6: a socket of IPv6 may have peers of either.
// Where it fails, the short moment remains that refuse is about.
func setLeastTTL(c syscall.Conn, ttl int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MINTTL, ttl)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, ttl)
	})
}
