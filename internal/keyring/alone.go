package keyring

import (
	"time"

	"github.com/watchword-auth/watchword/internal/store"
)

// Alone implements Peers for a replica without others: all of them have every key.
type Alone struct{}

// Authenticate implements Voucher: there is nobody to authenticate the row for.
func (Alone) Authenticate(k store.Key) store.Key { return k }

// Vouched implements Voucher. No other replica vouches for a row of an older version.
func (Alone) Vouched(k store.Key) bool { return k.SourceMAC != nil }

// Have implements Peers.
func (Alone) Have(string) bool { return true }

// Patience implements Peers.
func (Alone) Patience() time.Duration { return 0 }

// AnyKey implements Peers.
func (Alone) AnyKey(time.Time) bool { return false }

// Stopped implements Peers.
func (Alone) Stopped() time.Time { return time.Time{} }

// Changed implements Peers.
func (Alone) Changed() {}
