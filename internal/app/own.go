package app

import (
	"net"
	"net/netip"
	"strconv"
)

// ownURLs are the base URLs at which this replica knows, without asking, that it
// answers itself: the one that it advertises, and those of the address on which it
// listens. Nothing is known of a nil one.
func ownURLs(advertised string, listener net.Addr, tls bool) []string {
	var urls []string
	if advertised != "" {
		urls = append(urls, advertised)
	}
	tcp, ok := listener.(*net.TCPAddr)
	if !ok {
		return urls
	}
	scheme := "http"
	if tls {
		scheme = "https"
	}
	for _, ip := range reachedAt(tcp.AddrPort().Addr().Unmap()) {
		urls = append(urls, scheme+"://"+net.JoinHostPort(ip.String(), strconv.Itoa(tcp.Port)))
	}
	return urls
}

// reachedAt returns the addresses at which a listener on ip is reached: those that this
// machine has now. An address that it has lost may belong to another replica.
func reachedAt(ip netip.Addr) []netip.Addr {
	if !ip.IsUnspecified() {
		return []netip.Addr{ip}
	}
	interfaces, err := net.InterfaceAddrs()
	if err != nil {
		return nil // the replica finds out by asking
	}
	var list []netip.Addr
	for _, a := range interfaces {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && (prefix.Addr().Is4() || ip.Is6()) {
			list = append(list, prefix.Addr())
		}
	}
	return list
}
