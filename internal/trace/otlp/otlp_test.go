package otlp

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/trace"
	"github.com/watchword-auth/watchword/internal/trace/otlp/otlptest"
)

func open(t *testing.T, url string) (*Sender, *trace.Tracer, *testenv.Log) {
	t.Helper()
	log := &testenv.Log{}
	s := New(Config{
		URL: url, Header: map[string]string{"Authorization": "Bearer hunter2"}, Instance: "auth-0", Version: "test",
		Logger: slog.New(slog.NewTextHandler(log, nil)), Registerer: prometheus.NewRegistry(),
	})
	t.Cleanup(s.Close)
	return s, trace.NewTracer(s.Provider(), 1), log
}

// record records n steps.
func record(t *testing.T, tr *trace.Tracer, n int) {
	t.Helper()
	for i := range n {
		_, step := trace.Begin(tr.With(t.Context()), fmt.Sprint("step ", i))
		step.End(nil)
	}
}

// What is recorded arrives, also if the process ends at once.
func TestSent(t *testing.T) {
	r := otlptest.New(t)
	s, tr, log := open(t, r.URL+"/v1/traces")
	record(t, tr, 3*maxBatch/2)
	s.Close()
	spans := r.Spans()
	if len(spans) != 3*maxBatch/2 || spans[1].Name != "step 1" || spans[0].Service != "watchword" || spans[0].Instance != "auth-0" || spans[0].End < spans[0].Start {
		t.Errorf("%d spans: %+v", len(spans), spans[:min(2, len(spans))])
	}
	if got := r.Header().Get("Authorization"); got != "Bearer hunter2" {
		t.Errorf("Authorization is %q", got)
	}
	if testutil.ToFloat64(s.sent) != 3*maxBatch/2 || log.String() != "" {
		t.Errorf("%v sent, the log has %s", testutil.ToFloat64(s.sent), log)
	}
}

// While the receiver is away or hangs nobody waits; the queue has a bound, and what has no room
// there is counted. That it is away is said once, without the headers, and that it is back.
func TestOutage(t *testing.T) {
	r := otlptest.New(t)
	var hangs atomic.Bool
	hangs.Store(true)
	asked, release := make(chan struct{}, 100), make(chan struct{})
	r.Answer = func(w http.ResponseWriter) bool {
		asked <- struct{}{}
		if !hangs.Load() {
			return false
		}
		<-release
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	}
	s, tr, log := open(t, r.URL+"/v1/traces")
	record(t, tr, maxBatch)
	<-asked // and it hangs with the first batch
	began := time.Now()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { record(t, tr, maxQueue) })
	}
	all.Wait()
	if took := time.Since(began); took > timeout/2 {
		t.Errorf("recording took %v", took)
	}
	if got := testutil.ToFloat64(s.dropped); got != 7*maxQueue {
		t.Errorf("%v were dropped, want %d", got, 7*maxQueue)
	}
	hangs.Store(false)
	close(release)
	<-asked // the same batch again
	s.Close()
	if got := len(r.Spans()); got != maxBatch+maxQueue || testutil.ToFloat64(s.sent) != float64(got) || testutil.ToFloat64(s.up) != 1 {
		t.Errorf("%d arrived, %v sent, up %v", got, testutil.ToFloat64(s.sent), testutil.ToFloat64(s.up))
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "traces cannot be sent") || !strings.Contains(lines[0], "answers 503") || !strings.Contains(lines[1], "sent again") || strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log has %s", log)
	}
}

// A receiver that is never there does not keep the process.
func TestNobodyThere(t *testing.T) {
	s, tr, log := open(t, "http://"+testenv.Address(t)+"/v1/traces")
	record(t, tr, maxBatch+1)
	s.Close()
	if testutil.ToFloat64(s.dropped)+testutil.ToFloat64(s.sent) != maxBatch+1 || strings.Count(log.String(), "\n") != 1 || testutil.ToFloat64(s.up) != 0 {
		t.Errorf("%v dropped, the log has %s", testutil.ToFloat64(s.dropped), log)
	}
}

// What the receiver refuses is not sent again.
func TestRefused(t *testing.T) {
	part := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 3)
	part = protowire.AppendBytes(protowire.AppendTag(part, 2, protowire.BytesType), []byte("too many"))
	body := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), part)
	for _, tt := range []struct {
		name          string
		status        int
		body          []byte
		refused, sent float64
	}{
		{"all", 400, nil, 10, 0},
		{"a redirect, with the headers", 307, nil, 10, 0},
		{"a part", 200, body, 3, 7},
		{"an answer that is none", 200, bytes.Repeat([]byte{0xff}, 100), 0, 10},
	} {
		r := otlptest.New(t)
		var calls atomic.Int32
		r.Answer = func(w http.ResponseWriter) bool {
			calls.Add(1)
			w.Header().Set("Location", "/v1/traces")
			w.WriteHeader(tt.status)
			_, _ = w.Write(tt.body)
			return true
		}
		s, tr, _ := open(t, r.URL+"/v1/traces")
		record(t, tr, 10)
		s.Close()
		if testutil.ToFloat64(s.refused) != tt.refused || testutil.ToFloat64(s.sent) != tt.sent || calls.Load() != 1 {
			t.Errorf("%s: %v refused, %v sent, %d calls", tt.name, testutil.ToFloat64(s.refused), testutil.ToFloat64(s.sent), calls.Load())
		}
	}
}
