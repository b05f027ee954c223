package feed

import "github.com/prometheus/client_golang/prometheus"

// Register registers the metrics.
func (f *Feed) Register(r prometheus.Registerer) {
	subscribers := func(kind string, count func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "watchword_feed_subscribers",
			Help:        "Readers that follow the feed of revocations at this replica now: streams of events, and polls that are held back until there is something new.",
			ConstLabels: prometheus.Labels{"kind": kind},
		}, func() float64 { return float64(count()) })
	}
	r.MustRegister(
		subscribers("stream", func() int64 { return max(0, f.streams.Load()-f.waiting.Load()) }), // which change one after the other
		subscribers("poll", f.waiting.Load),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watchword_feed_subscribers_max",
			Help: "How many readers may follow the feed at this replica at once; others are told to poll.",
		}, func() float64 { return feedMaxStreams }),
	)
}
