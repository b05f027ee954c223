package activity

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/watchword-auth/watchword/internal/state/memstate"
)

// busy makes a replica with as many metrics as a real one, whose rings are full of what a busy one
// counts.
func busy(t testing.TB) *replica {
	r := boot(t, memstate.New(time.Now), "a", time.Now)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for n := range 100 {
		route := fmt.Sprint("GET /api/", n)
		r.seconds.WithLabelValues(route).Observe(float64(n) / 1000)
		for _, status := range []string{"200", "401", "429", "503"} {
			r.http.WithLabelValues(route, status).Inc()
		}
	}
	now := time.Now()
	for _, ring := range r.kept {
		for i := range ring.length {
			var f figures
			for column := range f {
				if column%3 > 0 { // most columns of a busy replica are not zero
					f[column] = uint32(rand.ExpFloat64() * 200 * ring.step.Seconds() / 10)
				}
			}
			ring.add(ring.slot(now)-int64(ring.length-1-i), &f)
		}
	}
	r.loaded = true
	return r
}

// What a replica does every ten seconds takes hardly more memory than to gather the metrics.
func TestCost(t *testing.T) {
	r := busy(t)
	if err := r.keep(t.Context()); err != nil { // makes the buffers
		t.Fatal(err)
	}
	gather := testing.AllocsPerRun(10, func() { r.Gather() })
	keep := testing.AllocsPerRun(10, func() { r.keep(t.Context()) })
	if keep-gather > 100 {
		t.Errorf("%v allocations, and %v to gather alone", keep, gather)
	}
}

func benchmarkKeep(b *testing.B, r *replica) {
	b.ReportAllocs()
	for b.Loop() {
		if err := r.keep(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	record, err := r.State.Get(b.Context(), key("a"))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(len(record.Value)), "record-bytes")
}

func benchmarkGather(b *testing.B, r *replica) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}

// What a replica does every ten seconds, and the same of gathering alone; and an overview of ten
// busy replicas.
func BenchmarkActivity(b *testing.B) {
	r := busy(b)
	b.Run("gather", func(b *testing.B) { benchmarkGather(b, r) })
	b.Run("keep", func(b *testing.B) { benchmarkKeep(b, r) })
	for n := range 10 {
		if _, err := r.State.Put(b.Context(), key(fmt.Sprint("r", n)), mustEncode(b, r.kept), time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("overview", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.overview(b, 48*time.Hour)
		}
	})
}
