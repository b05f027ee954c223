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
// Where the kernel will not do it there remains that short moment.
func refuse(l *net.TCPListener) {
	const flags, syn = 13, 0x02 // offset in the TCP header (RFC 9293 §3.1), and bit
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: flags, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: syn, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 18}, // more than a packet has: all of it
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return
	}
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	})
}
