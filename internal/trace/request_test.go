package trace

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	oteltrace "go.opentelemetry.io/otel/trace"
)

// An entry of a request has the ids of the request and of its trace, after its own attributes;
// any other entry is as it was.
func TestHandler(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(Handler(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	id := "a1"
	request := WithRequest(t.Context(), &id)
	traced := oteltrace.ContextWithSpanContext(request, oteltrace.NewSpanContext(oteltrace.SpanContextConfig{TraceID: oteltrace.TraceID{1}, SpanID: oteltrace.SpanID{2}}))
	for _, tt := range []struct {
		ctx  context.Context
		want string
	}{
		{t.Context(), "level=INFO msg=x of=me a=1\n"},
		{request, "level=INFO msg=x of=me a=1 request_id=a1\n"},
		{traced, "level=INFO msg=x of=me a=1 request_id=a1 trace_id=01000000000000000000000000000000\n"},
	} {
		out.Reset()
		logger.With("of", "me").InfoContext(tt.ctx, "x", "a", 1)
		if out.String() != tt.want {
			t.Errorf("%q, want %q", out.String(), tt.want)
		}
	}
}

func TestIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" || !ValidID(id) || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
	for id, want := range map[string]bool{
		"": false, "a": true, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false,
		"1-67891233-abcdef012345678912345678": true, "1=2/3+4:5.6_7": true,
		"a b": false, "a\nb": false, "a\"b": false, "ä": false, "a;b": false, "a\x00": false,
	} {
		if ValidID(id) != want {
			t.Errorf("%q: %v", id, !want)
		}
	}
}
