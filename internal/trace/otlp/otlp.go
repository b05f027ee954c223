// Package otlp sends the steps of traces to a receiver, by OTLP over HTTP (opentelemetry.io,
// "OTLP Specification 1.x", binary protobuf). Nothing waits for the receiver: steps wait in a
// queue that has a bound, and what finds no room there is lost, and counted. That the receiver is
// away is said once, and once that it is back.
package otlp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	// maxQueue bounds the steps that wait, of about 1 KB each.
	maxQueue = 4096
	// maxBatch is how many steps are sent at once.
	maxBatch = 512
	// every is how long a step waits for others.
	every = time.Second
	// timeout bounds an attempt to send, and lastTimeout the one when the process ends.
	timeout, lastTimeout = 10 * time.Second, 2 * time.Second
	// pause is between two attempts while the receiver is away, and mostPause bounds what it may
	// ask for by Retry-After.
	pause, mostPause = 5 * time.Second, time.Minute
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 64 << 10
)

// Config is what a Sender needs.
type Config struct {
	URL               string // of the receiver, with its path
	Header            map[string]string
	Instance, Version string // of this replica
	Logger            *slog.Logger
	Registerer        prometheus.Registerer
}

// A Sender sends the steps that its Provider records.
type Sender struct {
	cfg      Config
	client   *http.Client
	exporter *otlptrace.Exporter
	provider *sdk.TracerProvider
	queue    chan sdk.ReadOnlySpan
	stop     chan struct{}
	ended    sync.WaitGroup
	once     sync.Once

	sent, refused, dropped prometheus.Counter
	up                     prometheus.Gauge
	away                   bool // as the log has it; of run
}

// New makes a Sender, which sends until Close.
func New(c Config) *Sender {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_trace_spans_total",
		Help: "Spans of traces: sent, refused by the receiver, or dropped because it was away or too slow.",
	}, []string{"outcome"})
	s := &Sender{
		cfg: c, queue: make(chan sdk.ReadOnlySpan, maxQueue), stop: make(chan struct{}),
		client: &http.Client{
			Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the headers are for the receiver
		},
		sent: spans.WithLabelValues("sent"), refused: spans.WithLabelValues("refused"), dropped: spans.WithLabelValues("dropped"),
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "watchword_trace_receiver_up",
			Help: "Whether the receiver of traces answered the last time.",
		}),
	}
	s.up.Set(1)
	c.Registerer.MustRegister(spans, s.up)
	s.exporter = otlptrace.NewUnstarted(uploader{s})
	s.provider = sdk.NewTracerProvider(sdk.WithSpanProcessor(s), sdk.WithSampler(sdk.AlwaysSample()), sdk.WithResource(resource.NewSchemaless(
		attribute.String("service.name", "watchword"), attribute.String("service.version", c.Version), attribute.String("service.instance.id", c.Instance),
	)))
	s.ended.Go(s.run)
	return s
}

// Provider returns what records steps.
func (s *Sender) Provider() trace.TracerProvider { return s.provider }

// Close sends what waits, once, and ends. What is recorded afterwards is lost.
func (s *Sender) Close() {
	s.once.Do(func() { close(s.stop) })
	s.ended.Wait()
	s.client.CloseIdleConnections()
}

// OnStart implements sdk.SpanProcessor.
func (s *Sender) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements sdk.SpanProcessor. It never blocks.
func (s *Sender) OnEnd(span sdk.ReadOnlySpan) {
	select {
	case s.queue <- span:
	default:
		s.dropped.Inc()
	}
}

// ForceFlush implements sdk.SpanProcessor; nobody asks for it.
func (s *Sender) ForceFlush(context.Context) error { return nil }

// Shutdown implements sdk.SpanProcessor.
func (s *Sender) Shutdown(context.Context) error { s.Close(); return nil }

func (s *Sender) run() {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var batch []sdk.ReadOnlySpan
	for {
		select {
		case span := <-s.queue:
			if batch = append(batch, span); len(batch) < maxBatch {
				continue
			}
		case <-tick.C:
			if len(batch) == 0 {
				continue
			}
		case <-s.stop:
			s.last(batch)
			return
		}
		for {
			err := s.send(batch, timeout)
			var again *tryAgain
			if !errors.As(err, &again) {
				break
			}
			select {
			case <-time.After(again.after):
			case <-s.stop:
				s.last(batch)
				return
			}
		}
		batch = batch[:0]
	}
}

// last sends what waits, once.
func (s *Sender) last(batch []sdk.ReadOnlySpan) {
	for len(s.queue) > 0 {
		batch = append(batch, <-s.queue)
	}
	deadline := time.Now().Add(lastTimeout)
	for part := range slices.Chunk(batch, maxBatch) {
		if err := s.send(part, time.Until(deadline)); errors.As(err, new(*tryAgain)) {
			s.dropped.Add(float64(len(part)))
		}
	}
}

// send sends a batch once. The error is a tryAgain if another attempt may succeed.
func (s *Sender) send(batch []sdk.ReadOnlySpan, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := s.exporter.ExportSpans(ctx, batch)
	var p *partly
	switch again := (*tryAgain)(nil); {
	case err == nil:
		s.sent.Add(float64(len(batch)))
	case errors.As(err, &p):
		s.refused.Add(float64(p.rejected))
		s.sent.Add(float64(max(0, len(batch)-p.rejected)))
	case !errors.As(err, &again):
		s.refused.Add(float64(len(batch)))
	}
	s.say(err)
	return err
}

// say has the log say that sending fails, or that it works again.
func (s *Sender) say(err error) {
	was := s.away
	s.away = err != nil
	switch {
	case s.away && !was:
		s.up.Set(0)
		s.cfg.Logger.Warn("traces cannot be sent; requests go on, and traces are lost meanwhile", "url", s.cfg.URL, "err", err)
	case !s.away && was:
		s.up.Set(1)
		s.cfg.Logger.Info("traces are sent again", "url", s.cfg.URL)
	}
}

// A tryAgain is the error of an attempt that may succeed later.
type tryAgain struct {
	err   error
	after time.Duration
}

func (e *tryAgain) Error() string { return e.err.Error() }
func (e *tryAgain) Unwrap() error { return e.err }

// A partly is the error of an attempt of which the receiver took a part.
type partly struct{ rejected int }

func (e *partly) Error() string { return fmt.Sprintf("the receiver rejects %d spans", e.rejected) }

// An uploader is the otlptrace.Client of a Sender. The one of package otlptracehttp would bring
// gRPC and its gateway along, which are 8 MB.
type uploader struct{ *Sender }

// Start implements otlptrace.Client.
func (uploader) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (uploader) Stop(context.Context) error { return nil }

// UploadTraces implements otlptrace.Client.
func (u uploader) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// A TracesData is an ExportTraceServiceRequest on the wire, as the specification promises.
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for name, value := range u.cfg.Header {
		r.Header.Set(name, value)
	}
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("User-Agent", "watchword/"+u.cfg.Version)
	answer, err := u.client.Do(r)
	if err != nil {
		return &tryAgain{err, pause}
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	switch {
	case err != nil:
		return &tryAgain{err, pause}
	case answer.StatusCode/100 == 2:
		if n := rejected(text); n > 0 {
			return &partly{n}
		}
		return nil
	}
	err = fmt.Errorf("the receiver answers %d", answer.StatusCode)
	if slices.Contains([]int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}, answer.StatusCode) {
		return &tryAgain{err, retryAfter(answer.Header)}
	}
	return err
}

// retryAfter returns when a receiver wants to be asked again, within bounds.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds <= 0 {
		return pause
	}
	return min(time.Duration(seconds)*time.Second, mostPause)
}

// rejected returns how many spans an ExportTraceServiceResponse says were rejected
// (partial_success.rejected_spans).
func rejected(answer []byte) int {
	n, _ := protowire.ConsumeVarint(field(field(answer, 1), 1))
	return int(min(n, maxBatch))
}

// field returns the content of the first field that has the number, or what a varint of it
// begins with.
func field(b []byte, number protowire.Number) []byte {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if num == number && kind == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(b)
			return content
		}
		if num == number && kind == protowire.VarintType {
			return b
		}
		if n = protowire.ConsumeFieldValue(num, kind, b); n < 0 {
			return nil
		}
		b = b[n:]
	}
	return nil
}
