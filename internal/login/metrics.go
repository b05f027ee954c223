package login

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/known"
)

// metrics counts the use cases by how they ended.
type metrics struct {
	total  *prometheus.CounterVec
	issued *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, tokens *known.Tokens) metrics {
	m := metrics{total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_requests_total",
		Help: "Logins, renewals, verifications and recognitions of browsers, by outcome: ok, challenge (a second factor is asked for), or the code of the refusal.",
	}, []string{"use", "outcome"}), issued: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_access_tokens_issued_total",
		Help: "Access tokens that were signed for users, by algorithm.",
	}, []string{"algorithm"})}
	for _, use := range []string{"login", "login_complete", "login_passkey", "step_up", "renew", "verify", "recognise"} {
		m.total.WithLabelValues(use, "ok")
	}
	r.MustRegister(m.total, m.issued, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "watchword_known_tokens",
		Help: "Access tokens whose signature was verified and is remembered.",
	}, func() float64 { return float64(tokens.Len()) }))
	return m
}

// count takes the outcome from the error; its code is one of a fixed number.
func (m metrics) count(use string, err error) {
	outcome := "ok"
	if err != nil {
		outcome = problem.From(err).Code
	}
	m.countAs(use, outcome)
}

func (m metrics) countAs(use, outcome string) { m.total.WithLabelValues(use, outcome).Inc() }
