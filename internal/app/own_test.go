package app

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/watchword-auth/watchword/internal/testenv"
)

// A replica knows its own URLs where the configuration and the listener tell them.
func TestOwnURLs(t *testing.T) {
	at := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 8080} }
	for _, tt := range []struct {
		name       string
		advertised string
		listener   net.Addr
		tls        bool
		has, not   []string
	}{
		{"nothing is known", "", nil, false, nil, []string{""}},
		{"advertised", "https://auth-0:8080", nil, false, []string{"https://auth-0:8080"}, nil},
		{"an address", "https://auth-0", at("192.0.2.1"), false, []string{"https://auth-0", "http://192.0.2.1:8080"}, []string{"https://192.0.2.1:8080", "http://127.0.0.1:8080"}},
		{"over TLS", "", at("192.0.2.1"), true, []string{"https://192.0.2.1:8080"}, []string{"http://192.0.2.1:8080", ""}},
		{"IPv6", "", at("2001:db8::1"), false, []string{"http://[2001:db8::1]:8080"}, nil},
		{"every address", "", at("::"), false, []string{"http://127.0.0.1:8080"}, []string{"http://[::]:8080", "http://192.0.2.1:8080"}},
		{"every address of IPv4", "", at("0.0.0.0"), false, []string{"http://127.0.0.1:8080"}, []string{"http://0.0.0.0:8080", "http://[::1]:8080"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ownURLs(tt.advertised, tt.listener, tt.tls)
			for _, url := range tt.has {
				if !slices.Contains(got, url) {
					t.Errorf("%q is not among %q", url, got)
				}
			}
			for _, url := range tt.not {
				if slices.Contains(got, url) {
					t.Errorf("%q is among %q", url, got)
				}
			}
		})
	}
}

// A replica does not ask itself: its own URLs are not among its peers.
func TestOwnURLsAreNoPeers(t *testing.T) {
	_, listener := opened(t)
	port := listener.Addr().(*net.TCPAddr).Port
	cfg := clusterConfig(t, testenv.Postgres(t))
	cfg.Cluster.Discovery, cfg.Cluster.AdvertiseURL = "static", "http://auth-0:8080"
	cfg.Cluster.StaticPeers = []string{"http://auth-0:8080", "http://127.0.0.1:1", fmt.Sprintf("http://127.0.0.1:%d", port)}
	n, err := New(t.Context(), Options{Config: cfg, Logger: discard, Version: "test", Listener: listener.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if got := fmt.Sprint(n.cluster.Others()); got != "[{http://127.0.0.1:1 }]" {
		t.Errorf("its peers are %s", got)
	}
}
