package feed

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Streams and requests that are held back are counted while they last.
func TestFeedCountsSubscribers(t *testing.T) {
	n := startFeed(t)
	n.run(t)
	registry := prometheus.NewRegistry()
	n.feed.Register(registry)
	await := func(streams, polls float64) {
		t.Helper()
		var got map[string]float64
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			got = map[string]float64{}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					kind := "most"
					if len(m.GetLabel()) > 0 {
						kind = m.GetLabel()[0].GetValue()
					}
					got[kind] = m.GetGauge().GetValue()
				}
			}
			if got["stream"] == streams && got["poll"] == polls && got["most"] == feedMaxStreams {
				return
			}
		}
		t.Fatalf("%v, want %v streams and %v polls", got, streams, polls)
	}
	await(0, 0)
	one := n.get(t, "", "Accept", "text/event-stream")
	two := n.get(t, "", "Accept", "text/event-stream")
	done := make(chan struct{})
	go func() { defer close(done); n.page(t, "?wait=20") }()
	await(2, 1)
	one.Body.Close()
	await(1, 1)
	n.revoke(t, "a")
	<-done
	await(1, 0)
	two.Body.Close()
	await(0, 0)
}
