package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/trace"
	"github.com/watchword-auth/watchword/internal/trace/otlp"
)

// openTraces begins to send traces, if the configuration says where.
func (n *Node) openTraces(o Options, registry prometheus.Registerer) error {
	c := o.Config.Telemetry.Traces
	if c.Endpoint == "" {
		return nil
	}
	header, err := c.Header()
	if err != nil {
		return err
	}
	n.traces = otlp.New(otlp.Config{
		URL: c.URL(), Header: header, Instance: n.instance, Version: o.Version, Logger: o.Logger, Registerer: registry,
	})
	n.tracer = trace.NewTracer(n.traces.Provider(), float64(c.SampleRatio))
	return nil
}
