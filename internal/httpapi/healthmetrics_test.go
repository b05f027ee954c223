package httpapi

import (
	"context"
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The metrics say what the probes say, and wait for no backend longer than they do.
func TestHealthMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backends := map[string]error{"database": nil, "redis": nil}
		hang := false
		ping := func(name string) func(context.Context) error {
			return func(ctx context.Context) error {
				if hang {
					<-ctx.Done()
					return ctx.Err()
				}
				return backends[name]
			}
		}
		var unready error
		h := &Health{
			Timeout: time.Second, Ready: func() error { return unready }, Dispensable: []string{"redis"},
			Backends: map[string]func(context.Context) error{"database": ping("database"), "redis": ping("redis")},
		}
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(h.Collector())
		want := func(what string, want map[string]float64) {
			t.Helper()
			time.Sleep(2 * time.Second) // what the probes share is older
			began := time.Now()
			got := map[string]float64{}
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					name := f.GetName()
					if len(m.GetLabel()) > 0 {
						name += " " + m.GetLabel()[0].GetValue()
					}
					got[name] = m.GetGauge().GetValue()
				}
			}
			if took := time.Since(began); took > h.Timeout {
				t.Errorf("%s: it took %v", what, took)
			}
			for _, backend := range []string{"database", "redis"} {
				name := "watchword_backend_latency_seconds " + backend
				if took := got[name]; took != map[bool]float64{true: 1}[hang] {
					t.Errorf("%s: %s took %v", what, backend, took)
				}
				delete(got, name)
			}
			if !maps.Equal(got, want) {
				t.Errorf("%s: %v", what, got)
			}
		}
		all := func(ready, database, redis float64) map[string]float64 {
			return map[string]float64{"watchword_ready": ready, "watchword_backend_up database": database, "watchword_backend_up redis": redis}
		}
		want("all is well", all(1, 1, 1))
		backends["redis"] = errors.New("away")
		want("Redis is away", all(1, 1, 0))
		backends["redis"], backends["database"] = nil, errors.New("away")
		want("the database is away", all(0, 0, 1))
		hang = true
		want("they hang", all(0, 0, 0))
		hang, backends["database"], unready = false, nil, errors.New("no key")
		want("there is no key", all(0, 1, 1))
		unready = nil
		want("all is well again", all(1, 1, 1))
		h.Drain()
		want("it drains", all(0, 1, 1))
	})
}
