package keyring

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	keys     *prometheus.GaugeVec
	rotation prometheus.Gauge
	failures prometheus.Counter
	rejected *prometheus.CounterVec
}

// Why a row of the database is not believed.
const (
	rejectedMAC     = "mac"     // it does not verify
	rejectedRevoked = "revoked" // it revives a key that was seen revoked
	rejectedFormer  = "former"  // an older version has made it
)

func newMetrics() *metrics {
	m := &metrics{
		keys: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "watchword_signing_keys",
			Help: "Signing keys that this replica holds, by state.",
		}, []string{"state"}),
		rotation: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "watchword_signing_key_next_rotation_timestamp_seconds",
			Help: "When the key that signs now is to retire, in Unix time; 0 while no key may sign.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_signing_key_refresh_failures_total",
			Help: "Attempts to bring the signing keys up to date with the database that failed.",
		}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_signing_key_rows_rejected_total",
			Help: "Rows of signing keys in the database that are not believed, by reason. Each is counted once.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{rejectedMAC, rejectedRevoked, rejectedFormer} {
		m.rejected.WithLabelValues(reason)
	}
	return m
}

func (m *metrics) register(registerer prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.keys, m.rotation, m.failures, m.rejected} {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("keyring: %w", err)
		}
	}
	return nil
}

// show sets the gauges to what is held.
func (m *metrics) show(keys map[string]*held, pending bool, signing *held, now time.Time) {
	count := map[Phase]int{}
	if pending {
		count[Pending]++
	}
	for _, h := range keys {
		count[State(h.row, now)]++
	}
	for _, phase := range Phases {
		if phase != Removed {
			m.keys.WithLabelValues(string(phase)).Set(float64(count[phase]))
		}
	}
	m.rotation.Set(0)
	if signing != nil {
		m.rotation.Set(float64(signing.row.RetireAt.Unix()))
	}
}
