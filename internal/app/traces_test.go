package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/trace/otlp/otlptest"
)

// One trace shows what two replicas do for one thing, step by step, and nothing secret. The log
// names it.
func TestTraces(t *testing.T) {
	t.Parallel()
	receiver := otlptest.New(t)
	database := testenv.Postgres(t)
	observed := func(name string) func(cfg *config.Config) {
		return func(cfg *config.Config) {
			storedKeys(cfg)
			cfg.Cluster.InstanceID = name
			cfg.Server.TrustedProxies = []string{"127.0.0.1", "::1"}
			cfg.Telemetry.Traces = config.Traces{Endpoint: receiver.URL, Headers: []string{"x-api-key=hunter2"}}
			cfg.Telemetry.Traces.SampleRatio = 0 // only what others have traced
		}
	}
	one, _ := reachable(t, database, observed("one"))
	two, _ := reachable(t, database, observed("two"))

	const id, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	of := func(w *world, flags, method, path, token string, body any) answer {
		t.Helper()
		r := w.request(method, path, token, body)
		r.Header.Set("Traceparent", "00-"+id+"-"+parent+"-"+flags)
		r.Header.Set("X-Request-Id", "of-"+w.cfg.Cluster.InstanceID)
		return w.want(w.send(r), 200, "")
	}
	grant := decode[httpapi.Grant](t, of(one, "01", "POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: password}))
	of(two, "01", "GET", "/api/verify", grant.AccessToken, nil)
	renewed := decode[httpapi.Grant](t, of(two, "01", "POST", "/api/renew", "", httpapi.RenewRequest{RefreshToken: grant.RefreshToken}))
	of(one, "00", "GET", "/api/verify", grant.AccessToken, nil) // not to be recorded

	// What a replica asks another one for a request is of the request's trace.
	ctx, step := one.node.tracer.Request(t.Context(), carrier{"traceparent": "00-" + id + "-" + parent + "-01"}, false)
	eventually(t, func() error {
		others := one.node.cluster.Others()
		if len(others) == 0 {
			return errors.New("there is no other replica yet")
		}
		accepted, err := one.node.cluster.Accepts(ctx, others[0], renewed.AccessToken)
		if err == nil && !accepted {
			err = errors.New("it is not accepted")
		}
		return err
	})
	step.End(nil)

	var spans []otlptest.Span
	find := func(instance, name string) (found otlptest.Span) {
		for _, s := range spans {
			if s.Instance == instance && s.Name == name {
				found = s
			}
		}
		return found
	}
	eventually(t, func() error {
		spans = receiver.Spans()
		for _, want := range [][2]string{{"one", "POST /api/login"}, {"one", "request"}, {"two", "GET /api/verify"}, {"two", "POST /api/renew"}, {"two", "POST /api/cluster/verify"}} {
			if find(want[0], want[1]).ID == "" {
				return fmt.Errorf("%v has not arrived: %+v", want, spans)
			}
		}
		return nil
	})
	if i := slices.IndexFunc(spans, func(s otlptest.Span) bool { return s.Trace != id || s.Service != "watchword" || s.End < s.Start }); i >= 0 {
		t.Errorf("a step of no trace that was asked for: %+v", spans[i])
	}
	for _, tt := range []struct{ instance, name, within string }{
		{"one", "log in", "POST /api/login"},
		{"one", "count attempts", "log in"},
		{"one", "wait for a worker", "log in"},
		{"one", "hash a password", "log in"},
		{"one", "begin a session", "log in"},
		{"one", "database: read", "log in"},
		{"two", "verify", "GET /api/verify"},
		{"two", "renew", "POST /api/renew"},
		{"two", "verify for a replica", "POST /api/cluster/verify"},
	} {
		within := find(tt.instance, tt.within)
		if !slices.ContainsFunc(spans, func(s otlptest.Span) bool {
			return s.Instance == tt.instance && s.Name == tt.name && s.Parent == within.ID
		}) {
			t.Errorf("%s at %s is no step of %s: %+v", tt.name, tt.instance, tt.within, spans)
		}
	}
	if asked, asks := find("two", "POST /api/cluster/verify"), find("one", "request"); asked.Parent != asks.ID || asks.Parent != parent {
		t.Errorf("the question %+v is not of %+v", asked, asks)
	}
	login := find("one", "POST /api/login")
	if a := login.Attributes; login.Parent != parent || a["http.route"] != "/api/login" || a["http.request.method"] != "POST" || !strings.Contains(a["http.response.status_code"], "200") || a["watchword.request_id"] != "of-one" {
		t.Errorf("the step of the login is %+v", login)
	}
	n := 0
	for _, s := range spans {
		if s.Name == "GET /api/verify" {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d requests to verify were recorded, want the one that was sampled", n)
	}

	// Of no trace but the caller's own: a stranger does not know the cluster's secret.
	r := one.request("GET", "/api/pkeys?local=true", "", nil)
	r.Header.Set("Watchword-Nonce", strings.Repeat("n", 20))
	r.Header.Set("Traceparent", "00-"+strings.Repeat("f", 32)+"-"+parent+"-01")
	r.Header.Set("Watchword-Trace-MAC", strings.Repeat("A", 43))
	if one.node.cluster.VouchesTrace(r) {
		t.Error("a stranger is believed")
	}

	one.want(one.do("POST", "/api/login", "", httpapi.LoginRequest{Username: "admin", Password: "an unlucky guess"}), 401, "invalid_credentials")
	for _, secret := range []string{password, "an unlucky guess", "hunter2", grant.AccessToken, grant.RefreshToken, renewed.AccessToken, renewed.RefreshToken, "admin"} {
		if strings.Contains(receiver.String(), secret) {
			t.Errorf("the traces have %s", secret)
		}
	}
	for _, w := range []*world{one, two} {
		entry := fmt.Sprintf(`"request_id":"of-%s","trace_id":"%s"`, w.cfg.Cluster.InstanceID, id)
		if !strings.Contains(w.log.String(), entry) {
			t.Errorf("the log does not have %s: %s", entry, w.log.Tail())
		}
	}
	if one.metric(`watchword_trace_spans_total{outcome="sent"}`) == 0 {
		t.Error("no span is counted")
	}
}

// A carrier has headers by their names in small letters.
type carrier map[string]string

func (c carrier) Get(key string) string { return c[strings.ToLower(key)] }
func (c carrier) Set(key, value string) { c[key] = value }
func (c carrier) Keys() []string        { return nil }

// While the receiver of traces is away, requests are answered as fast as ever, and a replica
// ends in time.
func TestTracesOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(cfg *config.Config) {
		cfg.Telemetry.Traces = config.Traces{Endpoint: "http://" + testenv.Address(t), SampleRatio: 1}
	})
	for range 20 {
		w.verify(w.login("admin").AccessToken)
	}
	eventually(t, func() error {
		if !strings.Contains(w.log.String(), "traces cannot be sent") {
			return errors.New("the log does not say that the receiver is away")
		}
		return nil
	})
	for range 20 {
		w.verify(w.login("admin").AccessToken)
	}
	if got := w.metric("watchword_trace_receiver_up"); got != 0 {
		t.Errorf("up is %v", got)
	}
	w.want(w.do("GET", "/readyz", "", nil), 200, "")
	began := time.Now()
	w.restart()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the replica ended after %v", took)
	}
	if n := strings.Count(w.log.String(), "traces cannot be sent"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
}
