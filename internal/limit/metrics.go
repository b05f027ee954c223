package limit

import "github.com/prometheus/client_golang/prometheus"

// metrics count what was refused.
type metrics struct {
	refused  *prometheus.CounterVec
	lockouts *prometheus.CounterVec
	locked   prometheus.Counter
}

func newMetrics(r prometheus.Registerer, l *Limiter) metrics {
	m := metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_limit_refusals_total",
			Help: "Requests refused with 429 because their address or account had used up a rate, or because their address has failed too often (spray).",
		}, []string{"class", "by"}),
		lockouts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_limit_lockouts_total",
			Help: "How often an account was locked: for one address, or for all addresses that its user does not sign in from.",
		}, []string{"scope"}),
		locked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_limit_locked_attempts_total",
			Help: "Attempts refused as if the credential were wrong, because the account was locked.",
		}),
	}
	r.MustRegister(m.refused, m.lockouts, m.locked,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watchword_limit_counting_locally",
			Help: "1 while this replica counts attempts by itself because the state does not answer (limits.on_outage).",
		}, func() float64 { return number(l.local.counting()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watchword_limit_spraying",
			Help: "1 while addresses that have never succeeded wait from their first failure on.",
		}, func() float64 { return number(l.spraying()) }),
	)
	return m
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
