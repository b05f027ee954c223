package session

import "github.com/prometheus/client_golang/prometheus"

type metrics struct{ begun, endedTogether, unreadable prometheus.Counter }

func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		begun: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_sessions_begun_total",
			Help: "Sessions that began.",
		}),
		endedTogether: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_sessions_ended_together_total",
			Help: "Sessions that were ended with all others of their user. One that is ended by itself is in watchword_revocations_total, kind sid.",
		}),
		unreadable: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_session_unreadable_records_total",
			Help: "Records of sessions that could not be read.",
		}),
	}
	if r != nil {
		r.MustRegister(m.begun, m.endedTogether, m.unreadable)
	}
	return m
}
