package keyring

import (
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// Alone implements Peers for a replica without others: all of them have every key, and
// nothing tells a row that is ours from another.
type Alone struct{}

// Authenticate implements Peers. The row keeps the MAC that it has.
func (Alone) Authenticate(k store.Key) []byte { return k.MAC }

// Vouched implements Peers.
func (Alone) Vouched(store.Key) bool { return true }

// Have implements Peers.
func (Alone) Have(string) bool { return true }

// Patience implements Peers.
func (Alone) Patience() time.Duration { return 0 }

// AnyKey implements Peers.
func (Alone) AnyKey() bool { return false }

// Changed implements Peers.
func (Alone) Changed() {}
