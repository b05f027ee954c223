package httpapi

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	isReady = prometheus.NewDesc("watchword_ready",
		"1 if this replica may take traffic, as GET /readyz says.", nil, nil)
	backendUp = prometheus.NewDesc("watchword_backend_up",
		"1 if the storage backend answers and takes writes, as GET /health says.", []string{"backend"}, nil)
	backendLatency = prometheus.NewDesc("watchword_backend_latency_seconds",
		"How long the storage backend took to answer, or not to.", []string{"backend"}, nil)
)

// Collector returns metrics of what the probes say. To read them asks the backends, as a probe
// does, and shares the answers with the probes.
func (h *Health) Collector() prometheus.Collector { return healthCollector{h} }

type healthCollector struct{ *Health }

func (h healthCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{isReady, backendUp, backendLatency} {
		descs <- d
	}
}

func (h healthCollector) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	one := func(yes bool) float64 {
		if yes {
			return 1
		}
		return 0
	}
	c := &checkup{}
	if len(h.Backends) > 0 {
		c = h.checkup(context.Background()) // which is bounded by Timeout
	}
	reason, _ := h.unready(func() *checkup { return c })
	gauge(isReady, one(reason == ""))
	for name, backend := range c.report.Backends {
		gauge(backendUp, one(backend.Status == "ok"), name)
		gauge(backendLatency, backend.LatencyMS/1000, name)
	}
}
