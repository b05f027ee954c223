package tiered

import "github.com/prometheus/client_golang/prometheus"

// What a Get can come to.
const (
	hit      = "hit"      // a copy from Redis
	miss     = "miss"     // from SQL: Redis had no copy that may be read
	bypassed = "bypassed" // from SQL: copies are not read now, or Redis failed
)

type metrics struct {
	reads  *prometheus.CounterVec
	errors *prometheus.CounterVec
}

func newMetrics() metrics {
	m := metrics{
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_state_tier_reads_total",
			Help: "Records that were asked for: hit, a copy in Redis; miss, in the database for want of a copy; bypassed, in the database without Redis.",
		}, []string{"result"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_state_tier_redis_errors_total",
			Help: "What Redis was asked and did not do in time.",
		}, []string{"operation"}),
	}
	for _, result := range []string{hit, miss, bypassed} {
		m.reads.WithLabelValues(result)
	}
	return m
}

// register makes the metrics known; a nil registerer wants none.
func (s *Store) register(registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	degraded := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "watchword_state_tier_degraded",
		Help: "1 if this replica did without copies in Redis when it was asked last.",
	}, func() float64 {
		if v := s.current.Load(); v != nil && v.reads && !s.breaker.open.Load() {
			return 0
		}
		return 1
	})
	for _, c := range []prometheus.Collector{s.metrics.reads, s.metrics.errors, degraded} {
		if err := registerer.Register(c); err != nil {
			return err
		}
	}
	return nil
}
