//go:build !linux

package graceful

import "net"

// refuse does nothing on this system: a client that connects in the short moment between
// the last Accept and Close is reset.
func refuse(*net.TCPListener) {}

// admit has nothing to undo.
func admit(*net.TCPConn) {}
