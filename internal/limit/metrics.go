package limit

import "github.com/prometheus/client_golang/prometheus"

// metrics count what was refused.
type metrics struct {
	allowed  *prometheus.CounterVec
	refused  *prometheus.CounterVec
	lockouts *prometheus.CounterVec
	locked   prometheus.Counter
}

func newMetrics(r prometheus.Registerer, l *Limiter) metrics {
	m := metrics{
		allowed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_limit_allowed_total",
			Help: "Requests that a rate had room for, by class and by what was counted. A request that two rates count is counted twice.",
		}, []string{"class", "by"}),
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
	for _, class := range Classes {
		for _, by := range []string{"address", "account"} {
			m.allowed.WithLabelValues(string(class), by)
			m.refused.WithLabelValues(string(class), by)
		}
	}
	for _, scope := range []string{"address", "account"} {
		m.lockouts.WithLabelValues(scope)
	}
	r.MustRegister(m.allowed, m.refused, m.lockouts, m.locked,
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
