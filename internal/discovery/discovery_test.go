package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"
)

// A fakeDNS answers what the test has set.
type fakeDNS struct {
	mu        sync.Mutex
	services  map[string][]*net.SRV
	addresses map[string][]netip.Addr
	err       error
	asked     chan struct{} // if not nil, it receives a value for each question
}

func (d *fakeDNS) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if service+proto != "" {
		return "", nil, errors.New("the name is whole")
	}
	return name, d.services[name], d.err
}

func (d *fakeDNS) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asked != nil {
		select {
		case d.asked <- struct{}{}:
		default: // the test does not wait for it yet
		}
	}
	if network != "ip" {
		return nil, fmt.Errorf("network %q", network)
	}
	return d.addresses[host], d.err
}

func (d *fakeDNS) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A listener is a list with a channel that receives its changes.
type listener struct {
	*List
	changes chan struct{}
}

func newListener() *listener {
	l := &listener{changes: make(chan struct{}, 100)}
	l.List = NewList(slog.New(slog.DiscardHandler), func() { l.changes <- struct{}{} })
	return l
}

// becomes waits until the list has these peers.
func (l *listener) becomes(t *testing.T, want ...Peer) {
	t.Helper()
	deadline := time.After(time.Minute)
	for fmt.Sprint(l.Peers()) != fmt.Sprint(want) {
		select {
		case <-l.changes:
		case <-deadline:
			t.Fatalf("got  %v\nwant %v", l.Peers(), want)
		}
	}
}

// start runs a loop and ends it with the test.
func start(t *testing.T, run func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func TestAddresses(t *testing.T) {
	dns := &fakeDNS{addresses: map[string][]netip.Addr{"auth.internal": {
		netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("::ffff:10.0.0.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.2"),
	}}}
	l := newListener()
	start(t, func(ctx context.Context) {
		l.RunDNS(ctx, dns, parse(t, "https://auth.internal:8443"), time.Millisecond)
	})
	const name = "auth.internal"
	l.becomes(t, Peer{"https://10.0.0.1:8443", name}, Peer{"https://10.0.0.2:8443", name}, Peer{"https://[fd00::1]:8443", name})

	// A failure, or nothing, leaves the list; another answer replaces it.
	asked := make(chan struct{})
	dns.set(func() { dns.err, dns.addresses[name], dns.asked = errors.New("SERVFAIL"), nil, asked })
	for range 3 { // the third question comes after the second answer was taken in
		<-asked
	}
	l.becomes(t, Peer{"https://10.0.0.1:8443", name}, Peer{"https://10.0.0.2:8443", name}, Peer{"https://[fd00::1]:8443", name})
	dns.set(func() { dns.err, dns.addresses[name] = nil, []netip.Addr{netip.MustParseAddr("10.0.0.9")} })
	l.becomes(t, Peer{"https://10.0.0.9:8443", name})
}

func TestServices(t *testing.T) {
	dns := &fakeDNS{services: map[string][]*net.SRV{"_watchword._tcp.example.com": {
		{Target: "auth-1.example.com.", Port: 8081}, {Target: "auth-0.example.com.", Port: 8080},
	}}, err: errors.New("one record could not be used")}
	l := newListener()
	start(t, func(ctx context.Context) {
		l.RunDNS(ctx, dns, parse(t, "https://_watchword._tcp.example.com"), time.Hour)
	})
	l.becomes(t, Peer{"https://auth-0.example.com:8080", ""}, Peer{"https://auth-1.example.com:8081", ""})
}

func TestPorts(t *testing.T) {
	for text, want := range map[string]uint16{"http://a": 80, "https://a": 443, "https://a:8080": 8080} {
		if got := portOf(parse(t, text)); got != want {
			t.Errorf("%s: %d", text, got)
		}
	}
}

func TestSet(t *testing.T) {
	l := newListener()
	l.Set([]string{"https://b", "https://a", "https://b"})
	l.becomes(t, Peer{URL: "https://a"}, Peer{URL: "https://b"})
	for len(l.changes) > 0 {
		<-l.changes
	}
	l.Set([]string{"https://a", "https://b"})
	if n := len(l.changes); n != 0 {
		t.Errorf("%d changes, and nothing has changed", n)
	}
}
