package discovery

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/internal/poll"
)

// A Peer is where a replica is reached.
type Peer struct {
	URL string // its base URL
	// Name is the host name that its certificate is for. Empty: the URL's.
	Name string
}

// A List holds the peers that were found last. Its methods may be called by any number of
// goroutines.
type List struct {
	logger  *slog.Logger
	changed func()
	peers   atomic.Pointer[[]Peer]
}

// NewList returns an empty list. It calls changed after each change of its peers.
func NewList(logger *slog.Logger, changed func()) *List {
	l := &List{logger: logger, changed: changed}
	l.peers.Store(&[]Peer{})
	return l
}

// Peers returns the peers that were found last. The caller must not change the slice.
func (l *List) Peers() []Peer { return *l.peers.Load() }

// Set replaces the peers by those at the base URLs.
func (l *List) Set(urls []string) {
	peers := make([]Peer, len(urls))
	for i, u := range urls {
		peers[i] = Peer{URL: u}
	}
	l.take(peers)
}

func (l *List) take(peers []Peer) {
	slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.URL, b.URL) })
	peers = slices.Compact(peers)
	if slices.Equal(peers, l.Peers()) {
		return
	}
	l.peers.Store(&peers)
	l.logger.Info("replicas to ask for their keys", "peers", len(peers))
	l.changed()
}

// A Resolver is the part of net.Resolver that is used.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// lookupTimeout bounds one DNS lookup.
const lookupTimeout = 5 * time.Second

// RunDNS looks a URL's host up in the DNS at each interval, and puts the result into the
// list, until ctx ends. A host that begins with "_" is a service
// (_name._tcp.example.com), whose SRV records give hosts and ports. Otherwise each address
// of the host is a replica, at the URL's port.
func (l *List) RunDNS(ctx context.Context, resolver Resolver, service *url.URL, every time.Duration) {
	poll.Loop{
		Do: func(ctx context.Context) error {
			peers, err := resolve(ctx, resolver, service)
			if err != nil { // also of an empty answer: the last list stays
				return err
			}
			l.take(peers)
			return nil
		},
		Every: every, Bell: poll.NewBell(), Logger: l.logger.With("name", service.Hostname()),
		Failing: "the DNS does not name the replicas; going on with those that it named",
		Working: "the DNS names the replicas again",
	}.Run(ctx)
}

// LookUp does once what RunDNS does. If the DNS does not answer, the list stays as it is.
func (l *List) LookUp(ctx context.Context, resolver Resolver, service *url.URL) {
	peers, err := resolve(ctx, resolver, service)
	if err != nil {
		l.logger.WarnContext(ctx, "the DNS does not name the replicas yet", "name", service.Hostname(), "err", err)
		return
	}
	l.take(peers)
}

func resolve(ctx context.Context, resolver Resolver, service *url.URL) ([]Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	host := service.Hostname()
	var peers []Peer
	if strings.HasPrefix(host, "_") {
		_, records, err := resolver.LookupSRV(ctx, "", "", host)
		for _, r := range records { // also with an error, which may concern only some of them
			peers = append(peers, Peer{URL: base(service, strings.TrimSuffix(r.Target, "."), r.Port)})
		}
		if len(peers) > 0 {
			err = nil
		}
		return peers, err
	}
	addresses, err := resolver.LookupNetIP(ctx, "ip", host)
	for _, a := range addresses {
		peers = append(peers, Peer{URL: base(service, a.Unmap().String(), portOf(service)), Name: host})
	}
	return peers, err
}
