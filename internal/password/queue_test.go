package password

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// hashTime is how long a hash takes in these tests, in a bubble of package synctest.
const hashTime = 25 * time.Millisecond

// A crowd is clients that ask a queue of two workers and 64 places.
type crowd struct {
	t     *testing.T
	queue *queue
	end   context.Context
	all   sync.WaitGroup
}

func inCrowd(t *testing.T, f func(t *testing.T, c *crowd)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := &crowd{t: t, queue: newQueue(2, 64, time.Now), end: ctx}
		f(t, c)
		cancel()
		c.all.Wait()
	})
}

// once has one hash computed.
func (c *crowd) once(address, account string) error {
	ctx := From(c.end, Source{Address: address, Account: account})
	if err := c.queue.enter(ctx, 1, 1); err != nil {
		return err
	}
	time.Sleep(hashTime)
	c.queue.leave(1)
	return nil
}

// attack asks again and again from one address, and some time after a refusal.
func (c *crowd) attack(address string, account func(try int) string) {
	c.all.Go(func() {
		for try := 0; c.end.Err() == nil; try++ {
			if err := c.once(address, account(try)); err != nil {
				time.Sleep(10 * hashTime)
			}
		}
	})
}

// unharmed fails unless a client that asks three times, once a second, finds a worker each
// time as soon as a hash has ended.
func (c *crowd) unharmed(who, address, account string) {
	c.t.Helper()
	for range 3 {
		time.Sleep(time.Second)
		began := time.Now()
		if err := c.once(address, account); err != nil {
			c.t.Errorf("%s: %v", who, err)
		}
		if took := time.Since(began); took > 2*hashTime {
			c.t.Errorf("%s waits for %v", who, took)
		}
	}
}

func always(account string) func(int) string { return func(int) string { return account } }

// One address with seventy connections that guesses passwords of many accounts harms
// nobody else, not even its neighbours and the owners of these accounts.
func TestAFloodFromOneAddress(t *testing.T) {
	for _, address := range []string{"198.51.100.7", "2001:db8:1:2::7"} {
		inCrowd(t, func(t *testing.T, c *crowd) {
			for client := range 70 {
				c.attack(address, func(try int) string { return fmt.Sprint("user", (client*1000+try)%500) })
			}
			time.Sleep(time.Second)
			if err := c.once(address, "user0"); !errors.Is(err, ErrFlood) {
				t.Errorf("the flood is answered %v", err)
			}
			c.unharmed("another user", "203.0.113.1", "ester")
			c.unharmed("a user whose password is guessed", "203.0.113.1", "user7")
			c.unharmed("a neighbour", "198.51.100.8", "otto")
			c.unharmed("an IPv6 neighbour", "2001:db8:1:3::7", "otto")
			c.unharmed("the administrator of the machine", "", "")
		})
	}
}

// An attacker on one account, from the address that other users share, is behind these.
func TestAFloodFromASharedAddress(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		for range 70 {
			c.attack("198.51.100.7", always("ester"))
		}
		time.Sleep(time.Second)
		c.unharmed("a colleague", "198.51.100.7", "otto")
	})
}

// Hundreds of networks that attack one account do not keep its owner out, nor others.
func TestAFloodFromManyAddresses(t *testing.T) {
	for name, address := range map[string]string{"IPv4": "10.%d.%d.1", "IPv6": "2001:db8:%x%02x::1"} {
		inCrowd(t, func(t *testing.T, c *crowd) {
			for i := range 90 {
				c.attack(fmt.Sprintf(address, i/256, i%256), always("ester"))
			}
			time.Sleep(10 * time.Second)
			c.unharmed(name+": the owner", "203.0.113.1", "ester")
			c.unharmed(name+": another user", "192.0.2.1", "otto")
			if err := c.once("10.0.0.1", "ester"); name == "IPv4" && !errors.Is(err, ErrFlood) {
				t.Errorf("the flood is answered %v", err)
			}
		})
	}
}

// One who rents a whole network is one client.
func TestAFloodFromOneNetwork(t *testing.T) {
	for _, address := range []string{"198.51.100.%d", "2001:db8:1:%x::1"} {
		inCrowd(t, func(t *testing.T, c *crowd) {
			for i := range 80 {
				n := 0
				c.attack(fmt.Sprintf(address, i), func(int) string { n++; return fmt.Sprint(i, " ", n) })
			}
			for range 30 { // clients of one other network, which together get as much
				c.attack("203.0.113.1", always("ester"))
			}
			time.Sleep(10 * time.Second)
			_, mine := c.used(fmt.Sprintf(address, 0))
			_, theirs := c.used("203.0.113.1")
			if mine > theirs*1.1+5 || theirs > mine*1.1+5 {
				t.Errorf("one network got %.0f, the other %.0f", mine, theirs)
			}
		})
	}
}

// used returns what an address and its network have used.
func (c *crowd) used(address string) (host, network float64) {
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	parties, now := c.queue.partiesOf(Source{Address: address}), time.Now()
	return c.queue.usedLocked(parties[1], now), c.queue.usedLocked(parties[0], now)
}

// When many clients that have done nothing come at once, it is nobody's fault.
func TestMoreClientsThanPlacesAreBusy(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		results := make(chan error, 100)
		for i := range cap(results) {
			go func() { results <- c.once(fmt.Sprintf("10.%d.0.1", i), fmt.Sprint(i)) }()
		}
		var served, busy int
		for range cap(results) {
			switch err := <-results; {
			case err == nil:
				served++
			case errors.Is(err, ErrBusy):
				busy++
			default:
				t.Error(err)
			}
		}
		if served != 66 || busy != 34 {
			t.Errorf("%d are served, %d are not", served, busy)
		}
	})
}

// What was refused or given up is not held against anybody, and what was used long ago is
// forgotten.
func TestUsageIsWhatWasComputedOfLate(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		release := make(chan struct{})
		for range 2 {
			go func() {
				_ = c.queue.enter(t.Context(), 1, 1)
				<-release
				c.queue.leave(1)
			}()
		}
		synctest.Wait()
		ctx, cancel := context.WithCancel(From(t.Context(), Source{Address: "192.0.2.1"}))
		for range 100 {
			go func() { _ = c.queue.enter(ctx, 1, 1) }()
		}
		synctest.Wait()
		if host, network := c.used("192.0.2.1"); host != 64 || network != 64 {
			t.Errorf("64 that wait count as %v and %v", host, network)
		}
		time.Sleep(time.Second)
		cancel()
		synctest.Wait()
		if host, network := c.used("192.0.2.1"); host > 1e-9 || network > 1e-9 {
			t.Errorf("what was given up counts as %v and %v", host, network)
		}
		close(release)
		for range 8 {
			_ = c.once("192.0.2.1", "ester")
		}
		time.Sleep(20 * usageHalfLife)
		_ = c.once("203.0.113.1", "otto")
		if host, _ := c.used("192.0.2.1"); host > 1e-3 {
			t.Errorf("hashes of twenty minutes ago count as %v", host)
		}
	})
}

// An attacker with very many addresses and names neither fills the memory nor makes the
// queue forget those that flood it.
func TestTheMemoryOfAQueueIsBounded(t *testing.T) {
	now := time.Now()
	q := newQueue(1, 1, func() time.Time { return now })
	flood := q.partiesOf(Source{Address: "198.51.100.7", Account: "ester"})
	for _, p := range flood {
		q.useLocked(p, 100, now)
	}
	for i := range 2 * maxUsages {
		for _, p := range q.partiesOf(Source{Address: fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff), Account: fmt.Sprint(i)}) {
			q.useLocked(p, 1, now)
		}
	}
	if n := len(q.usages); n > maxUsages {
		t.Errorf("%d usages are remembered", n)
	}
	for _, p := range flood {
		if q.usedLocked(p, now) != 100 {
			t.Error("the flood is forgotten")
		}
	}
}

func TestBlocksOfAddresses(t *testing.T) {
	for address, want := range map[string][2]string{
		"198.51.100.7":        {"198.51.100.0/24", "198.51.100.7/32"},
		"::ffff:198.51.100.7": {"198.51.100.0/24", "198.51.100.7/32"},
		"2001:db8:1:2:3::4":   {"2001:db8:1::/48", "2001:db8:1:2::/64"},
		"fe80::1%eth0":        {"fe80::/48", "fe80::/64"},
		"":                    {},
		"nonsense":            {},
	} {
		if network, host := blocksOf(address); network != want[0] || host != want[1] {
			t.Errorf("%q: %q, %q", address, network, host)
		}
	}
}

// Two hundred logins at once from one address leave every place to clients from elsewhere:
// as many as there are places come after them, and each finds a worker.
func TestOneAddressCannotFillTheQueue(t *testing.T) {
	inCrowd(t, func(t *testing.T, c *crowd) {
		flood := make(chan error, 200)
		for i := range cap(flood) {
			go func() { flood <- c.once("198.51.100.7", fmt.Sprint("user", i)) }()
		}
		synctest.Wait()
		others, began := make(chan error, 64), time.Now()
		for i := range cap(others) {
			go func() { others <- c.once(fmt.Sprintf("10.%d.0.1", i), fmt.Sprint("user", i)) }()
		}
		for range cap(others) {
			if err := <-others; err != nil {
				t.Errorf("another client: %v", err)
			}
		}
		if took := time.Since(began); took > (64/2+1)*hashTime {
			t.Errorf("the other clients waited for the flood: %v", took)
		}
		var served int
		for range cap(flood) {
			switch err := <-flood; {
			case err == nil:
				served++
			case !errors.Is(err, ErrFlood) && !errors.Is(err, ErrBusy): // the last few of it are no flood
				t.Errorf("the flood is answered %v", err)
			}
		}
		if served != 2 { // those that were with the workers
			t.Errorf("%d of the flood are served", served)
		}
	})
}
