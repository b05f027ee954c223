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
	revoked  prometheus.GaugeFunc
}

// Why a row of the database is not believed.
const (
	rejectedMAC     = "mac"     // it does not verify
	rejectedRevoked = "revoked" // it revives a key that was seen revoked
	rejectedFormer  = "former"  // an older version has made it
	rejectedGone    = "gone"    // its keeper does not have the key any more
)

func newMetrics(revoked *Tombstones) *metrics {
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
		revoked: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watchword_revoked_signing_keys",
			Help: "Revoked signing keys and signing secrets of all replicas that this one remembers, each for as long as a token of it could be valid.",
		}, func() float64 { return float64(revoked.Len()) }),
	}
	for _, reason := range []string{rejectedMAC, rejectedRevoked, rejectedFormer, rejectedGone} {
		m.rejected.WithLabelValues(reason)
	}
	return m
}

func (m *metrics) register(registerer prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.keys, m.rotation, m.failures, m.rejected, m.revoked} {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("keyring: %w", err)
		}
	}
	return nil
}

// show sets the gauges to what is held.
func (m *metrics) show(keys map[string]*held, pending int, signing *held, now time.Time) {
	count := map[Phase]int{Pending: pending}
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
