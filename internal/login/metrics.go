package login

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/known"
)

// metrics counts the use cases by how they ended.
type metrics struct{ total *prometheus.CounterVec }

func newMetrics(r prometheus.Registerer, tokens *known.Tokens) metrics {
	m := metrics{total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_requests_total",
		Help: "Logins, renewals and verifications, by outcome: ok, or the code of the refusal.",
	}, []string{"use", "outcome"})}
	r.MustRegister(m.total, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
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
