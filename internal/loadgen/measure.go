package loadgen

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// maxFailures bounds the kinds of failures that are told apart.
const maxFailures = 50

// maxLatency bounds what a histogram tells apart; longer is as long.
const maxLatency = 10 * time.Minute

// A histogram counts latencies in microseconds, to three significant digits.
type histogram struct{ *hdrhistogram.Histogram }

func newHistogram(digits int) histogram {
	return histogram{hdrhistogram.New(1, maxLatency.Microseconds(), digits)}
}

func (h histogram) add(d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 1), maxLatency.Microseconds())) // which is in range
}

func (h histogram) at(percentile float64) time.Duration {
	return time.Duration(h.ValueAtPercentile(percentile)) * time.Microsecond
}

// measurements are those of one run, after its warm-up.
type measurements struct {
	mu       sync.Mutex
	from     time.Time
	open     bool
	interval time.Duration
	ops      map[Operation]*measured
	lines    map[Operation][]point

	// Since the last progress, warm-up as well.
	recent     histogram
	recentDone int64
	failed     int64
}

// measured is what one operation came to.
type measured struct {
	done     int64
	failures map[string]int64
	latency  histogram // from when a request was due
	service  histogram // from when it was sent
}

// A point is one interval of a timeline, by when its requests were due.
type point struct {
	done, failed int64
	latency      *histogram // nil: none yet
}

func newMeasurements(from time.Time, duration time.Duration, open bool) *measurements {
	interval := max(duration/maxIntervals, 100*time.Millisecond)
	m := &measurements{from: from, open: open, interval: interval, ops: map[Operation]*measured{}, lines: map[Operation][]point{}, recent: newHistogram(2)}
	for _, op := range Operations {
		m.ops[op] = &measured{failures: map[string]int64{}, latency: newHistogram(3), service: newHistogram(3)}
		m.lines[op] = make([]point, (duration+interval-1)/interval)
	}
	return m
}

// record takes in one request. Latencies are those of what was answered as wanted, and of
// what was not answered, which is at least as bad: a refusal that comes fast is no good answer.
func (m *measurements) record(op Operation, due, sent, ended time.Time, o outcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := o.failure == "" || o.noAnswer
	if o.failure != "" {
		m.failed++
	} else {
		m.recentDone++
	}
	if counts {
		m.recent.add(ended.Sub(due))
	}
	if due.Before(m.from) {
		return
	}
	one := m.ops[op]
	if o.failure == "" {
		one.done++
	} else {
		if _, known := one.failures[o.failure]; !known && len(one.failures) >= maxFailures {
			o.failure = "others"
		}
		one.failures[o.failure]++
	}
	if counts {
		one.latency.add(ended.Sub(due))
		one.service.add(ended.Sub(sent))
	}
	line := m.lines[op]
	p := &line[min(int(due.Sub(m.from)/m.interval), len(line)-1)]
	if o.failure != "" {
		p.failed++
	} else {
		p.done++
	}
	if counts {
		if p.latency == nil {
			h := newHistogram(2)
			p.latency = &h
		}
		p.latency.add(ended.Sub(due))
	}
}

// since returns what has happened since it was called last, so long ago.
func (m *measurements) since(elapsed time.Duration) Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := Progress{PerSecond: float64(m.recentDone) / elapsed.Seconds(), P99: m.recent.at(99), Failed: m.failed}
	m.recent.Reset()
	m.recentDone = 0
	return p
}
