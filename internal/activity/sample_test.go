package activity

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of a replica, as far as they are sampled, and others beside them.
type metrics struct {
	*prometheus.Registry
	uses, revocations, http, refusals, lockouts, budget *prometheus.CounterVec
	seconds                                             *prometheus.HistogramVec
	known                                               prometheus.Histogram
	begun, together                                     prometheus.Counter
}

func newMetrics() *metrics {
	counters := func(name string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name}, labels)
	}
	histogram := func(name string) prometheus.HistogramOpts {
		o := prometheus.HistogramOpts{Name: name}
		for _, b := range Bounds {
			o.Buckets = append(o.Buckets, b.Seconds())
		}
		return o
	}
	m := &metrics{
		Registry:    prometheus.NewRegistry(),
		uses:        counters("watchword_requests_total", "use", "outcome"),
		revocations: counters("watchword_revocations_total", "kind", "reason"),
		http:        counters("watchword_http_requests_total", "route", "status"),
		refusals:    counters("watchword_limit_refusals_total", "class", "by"),
		lockouts:    counters("watchword_limit_lockouts_total", "scope"),
		budget:      counters("watchword_http_requests_over_budget_total", "budget"),
		seconds:     prometheus.NewHistogramVec(histogram("watchword_http_request_duration_seconds"), []string{"route"}),
		known:       prometheus.NewHistogram(histogram("watchword_revocation_known_seconds")),
		begun:       prometheus.NewCounter(prometheus.CounterOpts{Name: "watchword_sessions_begun_total"}),
		together:    prometheus.NewCounter(prometheus.CounterOpts{Name: "watchword_sessions_ended_together_total"}),
	}
	m.MustRegister(m.uses, m.revocations, m.http, m.refusals, m.lockouts, m.budget, m.seconds, m.known, m.begun, m.together)
	return m
}

func (m *metrics) verified(n int) { m.uses.WithLabelValues("verify", "ok").Add(float64(n)) }

func (m *metrics) since(t *testing.T, s *sampler) (p Point) {
	t.Helper()
	families, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	f := s.since(families)
	p.Latency.Counts, p.Propagation.Counts = make([]int64, buckets), make([]int64, buckets)
	for column, to := range p.figures() {
		*to = int64(f[column])
	}
	return p
}

// Each figure is the difference of the right metrics between two samples.
func TestWhatIsSampled(t *testing.T) {
	m, s := newMetrics(), &sampler{}
	inc := func(v *prometheus.CounterVec, n float64, labels ...string) { v.WithLabelValues(labels...).Add(n) }
	for round := 1.0; round <= 2; round++ { // the second one finds other differences
		inc(m.uses, 1*round, "login", "ok")
		inc(m.uses, 2*round, "login_complete", "ok")
		inc(m.uses, 4*round, "login_passkey", "ok")
		inc(m.uses, 1000, "login", "challenge")
		inc(m.uses, 8*round, "login", "invalid_credentials")
		inc(m.uses, 16*round, "login_complete", "wrong_code")
		inc(m.uses, 1000, "step_up", "ok")
		inc(m.uses, 3*round, "renew", "ok")
		inc(m.uses, 4*round, "renew", "invalid_refresh_token")
		inc(m.uses, 5*round, "verify", "ok")
		inc(m.uses, 6*round, "verify", "token_revoked")
		m.begun.Add(7 * round)
		m.together.Add(8 * round)
		inc(m.revocations, 9*round, "sid", "logout")
		inc(m.revocations, 10*round, "user", "user_revoked")
		inc(m.revocations, 1000, "jti", "canary")
		inc(m.refusals, 11*round, "login", "address")
		inc(m.budget, 12*round, "user")
		inc(m.lockouts, 13*round, "account")
		inc(m.http, 14*round, "POST /api/login", "200")
		inc(m.http, 15*round, "POST /api/login", "503")
		inc(m.http, 1000, "GET /readyz", "503")
		for range int(round) {
			m.seconds.WithLabelValues("POST /api/login").Observe(.0007)
			m.seconds.WithLabelValues("GET /api/verify").Observe(.0007)
			m.seconds.WithLabelValues("GET /api/verify").Observe(7)
			m.seconds.WithLabelValues("GET /api/revocations").Observe(3600)
			m.known.Observe(.02)
		}
		n := int64(round)
		got := m.since(t, s)
		want := Point{
			SignIns: 7 * n, SignInsRefused: 24 * n, Renewals: 3 * n, RenewalsRefused: 4 * n, Verifications: 5 * n, VerificationsRefused: 6 * n,
			SessionsBegun: 7 * n, SessionsEnded: 17 * n, Revocations: 19 * n, LimitsHit: 23 * n, Lockouts: 13 * n, Requests: 29 * n, Failures: 15 * n,
			Latency:     Distribution{[]int64{0, 0, 2 * n, 0, 0, 0, 0, 0, 0, 0, n}},
			Propagation: Distribution{[]int64{0, 0, 0, 0, 0, n, 0, 0, 0, 0, 0}},
		}
		gotFigures, wantFigures := got.figures(), want.figures()
		for column := range columns {
			if *gotFigures[column] != *wantFigures[column] {
				t.Errorf("round %v, column %d: %d, want %d", round, column, *gotFigures[column], *wantFigures[column])
			}
		}
	}
}

// A counter that has gone back counts from zero, and one that is beyond all bounds as the bound.
func TestCountersThatGoBack(t *testing.T) {
	m, s := newMetrics(), &sampler{}
	m.verified(100)
	m.since(t, s)
	m.uses.Reset()
	m.verified(30)
	if got := m.since(t, s).Verifications; got != 30 {
		t.Errorf("after it had gone back from 100 to 30: %d", got)
	}
	m.uses.WithLabelValues("verify", "ok").Add(1e15)
	if got := m.since(t, s).Verifications; got != maxFigure {
		t.Errorf("of 1e15: %d", got)
	}
}

// A metric with other bounds is never made out to be faster than it is.
func TestOtherBounds(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "watchword_revocation_known_seconds", Buckets: []float64{.002, .3, 60}})
	reg.MustRegister(h)
	for _, took := range []float64{.0001, .2, 30, 100} {
		h.Observe(took)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	f := new(sampler).since(families)
	for i, want := range []uint32{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 2} {
		if got := f[propagation+i]; got != want {
			t.Errorf("bucket %d: %d, want %d", i, got, want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	d := Distribution{make([]int64, buckets)}
	if got := d.Quantile(.5); got != 0 || (Distribution{}).Quantile(.5) != 0 {
		t.Errorf("of nothing: %v", got)
	}
	d.Counts[3], d.Counts[5] = 90, 10 // 1 to 5 ms, 10 to 50 ms
	for q, want := range map[float64]time.Duration{
		0: time.Millisecond, .45: 3 * time.Millisecond, .9: 5 * time.Millisecond, .95: 30 * time.Millisecond, 1: 50 * time.Millisecond,
		-1: time.Millisecond, 2: 50 * time.Millisecond,
	} {
		if got := d.Quantile(q); math.Abs(float64(got-want)) > float64(time.Microsecond) {
			t.Errorf("q %v: %v, want %v", q, got, want)
		}
	}
	var all Distribution
	all.Add(d)
	all.Add(Distribution{[]int64{10: 300}})
	if got := all.Quantile(.5); got != 5*time.Second || all.Count() != 400 {
		t.Errorf("beyond the bounds: %v of %d", got, all.Count())
	}
}
