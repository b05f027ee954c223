package trace

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// maxID bounds the id of a request that a proxy has chosen.
const maxID = 64

// NewID returns the id of a request: 32 hexadecimal digits, new for each. It is no secret.
func NewID() string {
	const digits = "0123456789abcdef"
	var id [32]byte
	for i := 0; i < len(id); i += 16 {
		n := rand.Uint64()
		for j := range 16 {
			id[i+j] = digits[n&0xf]
			n >>= 4
		}
	}
	return string(id[:])
}

// ValidID reports whether a text may be the id of a request: up to 64 letters, digits, and
// characters of "-_.:=/+".
func ValidID(id string) bool {
	return id != "" && len(id) <= maxID && !strings.ContainsFunc(id, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-_.:=/+", c)
	})
}

type requestKey struct{}

// WithRequest returns the context of the request that has the id.
func WithRequest(ctx context.Context, id *string) context.Context {
	return context.WithValue(ctx, requestKey{}, id)
}

// RequestID returns the id of the request that the context belongs to, or "" if it belongs to
// none.
func RequestID(ctx context.Context) string {
	if id, ok := ctx.Value(requestKey{}).(*string); ok {
		return *id
	}
	return ""
}

// Handler returns a handler that adds to each entry the ids of the request and of the trace
// that its context belongs to, as request_id and trace_id.
func Handler(next slog.Handler) slog.Handler { return handler{next} }

type handler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	var attrs [2]slog.Attr
	n := 0
	if id := RequestID(ctx); id != "" {
		attrs[n] = slog.String("request_id", id)
		n++
	}
	if s := trace.SpanContextFromContext(ctx); s.HasTraceID() {
		attrs[n] = slog.String("trace_id", s.TraceID().String())
		n++
	}
	if n > 0 {
		r = r.Clone() // the record is its maker's
		r.AddAttrs(attrs[:n]...)
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
