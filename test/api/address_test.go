package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// What a client says of its own address is believed of trusted proxies alone, also
// where it is kept: in the session and in the audit trail. Gateways write it with a port,
// and in another header.
func TestAddressIsOfATrustedProxy(t *testing.T) {
	for _, c := range []struct {
		trusted []string
		header  config.ForwardedHeader
		sent    http.Header
		want    string
	}{
		{nil, config.ForwardedAuto, http.Header{"X-Forwarded-For": {"198.51.100.7"}, "Forwarded": {"for=198.51.100.7"}}, "127.0.0.1"},
		{[]string{"127.0.0.0/8"}, config.ForwardedAuto, http.Header{"X-Forwarded-For": {"198.51.100.7"}}, "198.51.100.7"},
		{[]string{"127.0.0.0/8"}, config.ForwardedAuto, http.Header{"X-Forwarded-For": {"203.0.113.9, [2001:db8::1]:443"}}, "2001:db8::1"},
		{[]string{"127.0.0.0/8"}, config.ForwardedAuto, http.Header{"Forwarded": {`for=203.0.113.9, For="198.51.100.7:51234";proto=https`}}, "198.51.100.7"},
		{[]string{"127.0.0.0/8"}, config.ForwardedFor, http.Header{"X-Forwarded-For": {"198.51.100.7:51234"}, "Forwarded": {"for=203.0.113.9"}}, "198.51.100.7"},
		{[]string{"127.0.0.0/8"}, config.Forwarded, http.Header{"X-Forwarded-For": {"203.0.113.9"}, "Forwarded": {"for=198.51.100.7"}}, "198.51.100.7"},
	} {
		t.Run(fmt.Sprint(c.header, c.sent), func(t *testing.T) {
			w := replica.New(t, func(cfg *config.Config) { cfg.Server.TrustedProxies, cfg.Server.ForwardedHeader = c.trusted, c.header })
			body := strings.NewReader(fmt.Sprintf(`{"username":"admin","password":%q}`, kit.Password))
			r, err := http.NewRequestWithContext(t.Context(), "POST", w.URL+"/api/login", body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = c.sent
			r.Header.Set("Content-Type", "application/json")
			g := kit.Decode[httpapi.Grant](t, w.Want(w.Send(r), 200, ""))
			list := kit.Decode[httpapi.SessionList](t, w.Want(w.Do("GET", "/api/sessions", g.AccessToken, nil), 200, "")).Sessions
			if len(list) != 1 || list[0].Address != c.want {
				t.Errorf("the sessions are %+v, want %s", list, c.want)
			}
			events, err := w.Parts().Audit.Events(t.Context(), store.AuditQuery{Limit: 1})
			if err != nil || len(events) != 1 || events[0].Action != "login" || events[0].Address != c.want {
				t.Errorf("the audit trail has %+v, %v", events, err)
			}
		})
	}
}
