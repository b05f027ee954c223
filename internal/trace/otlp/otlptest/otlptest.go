// Package otlptest is a receiver of traces for tests.
package otlptest

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A Span is a step as it was received.
type Span struct {
	Service, Instance string
	Trace, ID, Parent string // in hexadecimal
	Name              string
	Kind              tracepb.Span_SpanKind
	Failed            bool
	Attributes        map[string]string
	Start, End        uint64 // in nanoseconds since 1970
}

// A Receiver speaks OTLP over HTTP.
type Receiver struct {
	URL    string
	Answer func(w http.ResponseWriter) bool // answers instead, unless it reports false; nil: never

	mu     sync.Mutex
	spans  []Span
	header http.Header
	bodies [][]byte
}

// New starts a Receiver, which ends with the test.
func New(t testing.TB) *Receiver {
	r := &Receiver{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if r.Answer != nil && r.Answer(w) {
			return
		}
		var data tracepb.TracesData
		if err != nil || req.Method != http.MethodPost || req.URL.Path != "/v1/traces" || req.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(body, &data) != nil {
			t.Errorf("no traces: %s %s %s %v", req.Method, req.URL, req.Header.Get("Content-Type"), err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.header, r.bodies = req.Header, append(r.bodies, body)
		for _, resource := range data.ResourceSpans {
			of := texts(resource.Resource.Attributes)
			for _, scope := range resource.ScopeSpans {
				for _, s := range scope.Spans {
					r.spans = append(r.spans, Span{
						of["service.name"], of["service.instance.id"],
						hex.EncodeToString(s.TraceId), hex.EncodeToString(s.SpanId), hex.EncodeToString(s.ParentSpanId),
						s.Name, s.Kind, s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR, texts(s.Attributes), s.StartTimeUnixNano, s.EndTimeUnixNano,
					})
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(s.Close)
	r.URL = s.URL
	return r
}

func texts(attrs []*commonpb.KeyValue) map[string]string {
	m := map[string]string{}
	for _, a := range attrs {
		m[a.Key] = a.Value.GetStringValue()
		if _, isText := a.Value.Value.(*commonpb.AnyValue_StringValue); !isText {
			m[a.Key] = a.Value.String()
		}
	}
	return m
}

// Spans returns what was received.
func (r *Receiver) Spans() []Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Span(nil), r.spans...)
}

// Header returns the header of the last request.
func (r *Receiver) Header() http.Header {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.header
}

// String is all that was received.
func (r *Receiver) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []byte
	for _, b := range r.bodies {
		all = append(all, b...)
	}
	return string(all)
}
