package sqldb

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics collects the state of the pools. On SQLite there are two, "read" and "write";
// elsewhere there is one, "all".
type metrics struct {
	pools   map[string]*pool
	retries prometheus.Counter

	open, inUse, limit, waiting, waits, waited, refused, readOnly *prometheus.Desc
}

func newMetrics(db *DB) *metrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("watchword_database_"+name, help, []string{"pool"},
			prometheus.Labels{"dialect": db.dialect.String()})
	}
	m := &metrics{
		pools: map[string]*pool{"write": db.writer, "read": db.reader},
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name:        "watchword_database_transaction_retries_total",
			Help:        "Transactions that were run again because the database asked for it.",
			ConstLabels: prometheus.Labels{"dialect": db.dialect.String()},
		}),
		open:     desc("connections_open", "Connections that are open."),
		inUse:    desc("connections_in_use", "Connections that are in use now."),
		limit:    desc("connections_max", "The greatest number of connections (database.max_connections)."),
		waiting:  desc("connections_waiting", "Callers that wait for a connection now."),
		waits:    desc("connection_waits_total", "Callers that had to wait for a connection."),
		waited:   desc("connection_wait_seconds_total", "Time that callers waited for a connection."),
		refused:  desc("connection_refusals_total", "Callers that got no connection in time."),
		readOnly: desc("read_only_answers_total", "How often a server was not believed because it takes no writes."),
	}
	if db.reader == db.writer {
		m.pools = map[string]*pool{"all": db.writer}
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.retries.Collect(ch)
	for name, p := range m.pools {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, name)
		}
		counter := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, name)
		}
		gauge(m.open, float64(p.db.Stats().OpenConnections))
		gauge(m.inUse, float64(len(p.slots)+len(p.kept)))
		gauge(m.limit, float64(cap(p.slots)+cap(p.kept)))
		gauge(m.waiting, float64(p.waiting.Load()))
		counter(m.waits, float64(p.waits.Load()))
		counter(m.waited, time.Duration(p.waited.Load()).Seconds())
		counter(m.refused, float64(p.refused.Load()))
		counter(m.readOnly, float64(p.readOnly.Load()))
	}
}
