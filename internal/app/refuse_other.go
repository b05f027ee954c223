//go:build !linux

package app

import "net"

// refuse can do nothing here: who connects in the short moment between the last
// Accept and Close is reset.
func refuse(*net.TCPListener) {}

// admit has nothing to undo.
func admit(*net.TCPConn) {}
