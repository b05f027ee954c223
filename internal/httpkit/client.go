package httpkit

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var (
	errNoToken       = problem.New(problem.Unauthenticated, "token_missing", "send the access token as Authorization: Bearer …")
	errSeveralTokens = problem.New(problem.Malformed, "several_tokens", "the request has several Authorization headers")
)

// Proxies are the addresses whose X-Forwarded-For is believed. From any other address the
// header is ignored, because the client can write it.
type Proxies []netip.Prefix

// Address returns the client's address. It is the address of the connection, or, as long as
// a trusted proxy has written the right end of X-Forwarded-For, the address that stands
// there.
func (p Proxies) Address(r *http.Request) string {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return "" // not a network connection, as in a test
	}
	address := peer.Addr().Unmap()
	if !p.trusts(address) {
		return address.String()
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break // no trusted proxy wrote this; the last trusted address counts
		}
		address = hop.Unmap().WithZone("") // a zone is any text
		if !p.trusts(address) {
			break
		}
	}
	return address.String()
}

func (p Proxies) trusts(a netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// Client returns where a request came from.
func (p Proxies) Client(r *http.Request) login.Client {
	return login.Client{Address: p.Address(r), UserAgent: r.UserAgent()}
}

// bearer returns the token of the one Authorization header (RFC 6750 §2.1). Tokens in a
// query or a body are not accepted: they end up in logs.
func bearer(r *http.Request) (string, error) {
	headers := r.Header.Values("Authorization")
	switch {
	case len(headers) == 0:
		return "", errNoToken
	case len(headers) > 1: // a service behind this one might read another of them
		return "", errSeveralTokens
	}
	scheme, token, ok := strings.Cut(headers[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errNoToken
	}
	return token, nil
}

// Authenticate verifies the access token of a request.
func Authenticate(s *login.Service, r *http.Request) (*accesstoken.Token, error) {
	if c, ok := r.Context().Value(checkedKey{}).(checked); ok {
		if c.err != nil {
			return nil, c.err
		}
		if err := s.Live(r.Context(), c.token); err != nil {
			return nil, err
		}
		return c.token, nil
	}
	token, err := bearer(r)
	if err != nil {
		return nil, err
	}
	return s.Verify(r.Context(), token)
}
