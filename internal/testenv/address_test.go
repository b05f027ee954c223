package testenv

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// Nobody is given an address by chance that is kept, and whoever names it listens
// there, as often as it likes.
func TestAddress(t *testing.T) {
	kept := map[string]bool{}
	for range 200 {
		kept[Address(t)] = true
	}
	for range 2000 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if kept[l.Addr().String()] {
			t.Fatalf("%s was given away", l.Addr())
		}
		l.Close()
	}
	for addr := range kept {
		if c, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("%v, %v: somebody listens", c, err)
		}
		for range 2 {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
			l.Close()
		}
	}
}
