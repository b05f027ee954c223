package password

import (
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// poolMetrics tell how busy the pool is.
type poolMetrics struct {
	running      *atomic.Int64 // hashes in work
	took, waited prometheus.Histogram
	busy, flood  prometheus.Counter
}

func newMetrics(r prometheus.Registerer, q *queue, workers int, foreign func() float64) poolMetrics {
	auto := promauto.With(r)
	refusals := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_password_hash_refusals_total",
		Help: "Hashes that found no room to wait: busy, or flood, if it was the fault of their network, host or account.",
	}, []string{"reason"})
	m := poolMetrics{
		running: new(atomic.Int64),
		took: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "watchword_password_hash_duration_seconds",
			Help:    "Time to compute the hash of a password, without the time that it waited.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}),
		waited: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "watchword_password_hash_wait_seconds",
			Help:    "Time that a hash waited until it was computed.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		busy:  refusals.WithLabelValues("busy"),
		flood: refusals.WithLabelValues("flood"),
	}
	gauge := func(name, help string, f func() float64) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	gauge("watchword_password_hashes_running", "Hashes of passwords that are computed now.",
		func() float64 { return float64(m.running.Load()) })
	gauge("watchword_password_hashes_waiting", "Hashes of passwords that wait now.",
		func() float64 { return float64(q.length()) })
	gauge("watchword_password_hashes_running_max", "How many hashes of passwords are computed at once at most (password.workers).",
		func() float64 { return float64(workers) })
	gauge("watchword_password_hashes_waiting_max", "How many hashes of passwords may wait (password.queue).",
		func() float64 { return float64(q.room) })
	gauge("watchword_password_foreign_hashes", "Users whose password is still hashed as another system did it, as counted within the last hour or so.", foreign)
	return m
}

// refuse counts a hash that was not computed. One whose client has gone is not counted.
func (m poolMetrics) refuse(err error) {
	switch {
	case errors.Is(err, ErrFlood):
		m.flood.Inc()
	case errors.Is(err, ErrBusy):
		m.busy.Inc()
	}
}
