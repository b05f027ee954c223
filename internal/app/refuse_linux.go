package app

import (
	"net"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// refuse makes the kernel drop the packet (SYN) with which a client would open a new
// connection, so that between the last Accept and Close nobody can connect who would
// be reset then. Handshakes under way end. A dropped client sends the packet again
// after a second and meets a closed port, or who listens there next.
//
// A filter does it exactly; newer kernels let only root set one. Anybody may ask for
// packets that have passed no router and say so by a TTL of 255 (RFC 5082), which
// none that opens a connection has. Where neither works there remains that short
// moment.
func refuse(l *net.TCPListener) {
	raw, err := l.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if filter(int(fd)) != nil {
			setLeastTTL(int(fd), 255)
		}
	})
}

// admit has the kernel take all packets of a connection that was made while a listener
// refused others.
func admit(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { setLeastTTL(int(fd), 0) })
}

// setLeastTTL sets both: a socket of IPv6 may have peers of either.
func setLeastTTL(fd, ttl int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MINTTL, ttl)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MINHOPCOUNT, ttl)
}

// filter lets through what is no SYN.
func filter(fd int) error {
	const flags, syn = 13, 0x02 // offset in the TCP header (RFC 9293 §3.1), and bit
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: flags, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: syn, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 18}, // more than a packet has: all of it
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	instructions := make([]unix.SockFilter, len(program))
	for i, in := range program {
		instructions[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]})
}
