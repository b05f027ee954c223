package cluster

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// The reasons why something that was said in a replica's name is not believed.
const (
	wrongMAC       = "mac"       // the cluster's secret does not vouch for it
	wrongOwner     = "owner"     // the kid is not its maker's, or not the key's
	wrongAlgorithm = "algorithm" // none that is accepted
	wrongKey       = "key"       // it cannot be read
)

type metrics struct {
	replicas *prometheus.GaugeVec
	keys     prometheus.Gauge
	clock    prometheus.Gauge
	rejected *prometheus.CounterVec
	lookups  *prometheus.CounterVec
	failures prometheus.Counter
	known    prometheus.Histogram
	heldUp   prometheus.Counter
	fetches  *prometheus.CounterVec
	feeds    *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		replicas: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "watchword_cluster_replicas",
			Help: "Replicas in the registry, this one included, by whether they are alive.",
		}, []string{"state"}),
		keys: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "watchword_cluster_keys",
			Help: "Public keys in the merged key set.",
		}),
		clock: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "watchword_cluster_clock_offset_seconds",
			Help: "By how much this replica's clock was ahead of the database's when the registry was read last.",
		}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_cluster_rejected_total",
			Help: "What was said in another replica's name and not believed, by reason.",
		}, []string{"reason"}),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_cluster_lookups_total",
			Help: "Keys that tokens named and this replica did not know, by what became of looking for them.",
		}, []string{"result"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_cluster_registry_failures_total",
			Help: "Attempts to read or write the registry of replicas that failed.",
		}),
		heldUp: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_cluster_keys_held_up_total",
			Help: "Keys of this replica that a live one had not taken in after the time that caches keep a key set.",
		}),
		known: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "watchword_cluster_key_known_seconds",
			Help:    "From when a key of this replica was made until every other one had it.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}),
	}
	m.fetches = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_cluster_peer_fetches_total",
		Help: "Attempts to fetch the keys of another replica over HTTP, by result.",
	}, []string{"result"})
	for _, result := range []string{fetchOK, fetchFailed, fetchRejected, fetchSelf} {
		m.fetches.WithLabelValues(result)
	}
	m.feeds = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_cluster_feed_fetches_total",
		Help: "Attempts to learn from another replica what was revoked, because the database did not answer, by result.",
	}, []string{"result"})
	for _, result := range []string{fetchOK, fetchFailed, fetchRejected} {
		m.feeds.WithLabelValues(result)
	}
	for _, reason := range []string{wrongMAC, wrongOwner, wrongAlgorithm, wrongKey} {
		m.rejected.WithLabelValues(reason)
	}
	for _, result := range []string{found, unknown, refused, unavailable} {
		m.lookups.WithLabelValues(result)
	}
	return m
}

func (m *metrics) register(registerer prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.replicas, m.keys, m.clock, m.rejected, m.lookups, m.failures, m.known, m.heldUp, m.fetches, m.feeds} {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	return nil
}
