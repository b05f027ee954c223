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
// where it is kept: in the session and in the audit trail.
func TestAddressIsOfATrustedProxy(t *testing.T) {
	for want, trusted := range map[string][]string{"127.0.0.1": nil, "198.51.100.7": {"127.0.0.0/8"}} {
		t.Run(want, func(t *testing.T) {
			w := replica.New(t, func(cfg *config.Config) { cfg.Server.TrustedProxies = trusted })
			body := strings.NewReader(fmt.Sprintf(`{"username":"admin","password":%q}`, kit.Password))
			r, err := http.NewRequestWithContext(t.Context(), "POST", w.URL+"/api/login", body)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = http.Header{"Content-Type": {"application/json"}, "X-Forwarded-For": {"198.51.100.7"}}
			g := kit.Decode[httpapi.Grant](t, w.Want(w.Send(r), 200, ""))
			list := kit.Decode[httpapi.SessionList](t, w.Want(w.Do("GET", "/api/sessions", g.AccessToken, nil), 200, "")).Sessions
			if len(list) != 1 || list[0].Address != want {
				t.Errorf("the sessions are %+v", list)
			}
			events, err := w.Parts().Audit.Events(t.Context(), store.AuditQuery{Limit: 1})
			if err != nil || len(events) != 1 || events[0].Action != "login" || events[0].Address != want {
				t.Errorf("the audit trail has %+v, %v", events, err)
			}
		})
	}
}
