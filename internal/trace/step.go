package trace

import (
	"context"
	"math/rand/v2"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/watchword-auth/watchword/internal/problem"
)

// scope is the name under which steps are sent.
const scope = "github.com/watchword-auth/watchword"

// A Step is a part of what is done for a request, with its beginning and its end. The zero
// Step is of a request that is not traced; it does nothing.
type Step struct{ span trace.Span }

// Start begins a step of the trace that the context belongs to. If it belongs to none, the
// step does nothing, and the context is returned as it is.
func Start(ctx context.Context, name string, attrs ...Attr) (context.Context, Step) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, Step{}
	}
	ctx, span := parent.TracerProvider().Tracer(scope).Start(ctx, name, trace.WithAttributes(attrs...))
	return ctx, Step{span}
}

// An Attr says something about a step.
type Attr = attribute.KeyValue

// Text is an attribute.
func Text(key, value string) Attr { return attribute.String(key, value) }

// Number is an attribute.
func Number(key string, value int) Attr { return attribute.Int(key, value) }

// On reports whether the step is of a trace, so that attributes are of use.
func (s Step) On() bool { return s.span != nil }

// Rename gives the step another name.
func (s Step) Rename(name string) {
	if s.span != nil {
		s.span.SetName(name)
	}
}

// Set adds attributes.
func (s Step) Set(attrs ...Attr) {
	if s.span != nil {
		s.span.SetAttributes(attrs...)
	}
}

// Fail says that the step has failed by our own fault.
func (s Step) Fail() {
	if s.span != nil {
		s.span.SetStatus(codes.Error, "")
	}
}

// End ends the step. Of an error, the trace has the code alone, as error.type: its text may
// have names of users or of hosts in it. A step fails by what is our own fault, and not by a
// refusal.
func (s Step) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		p := problem.From(err)
		s.span.SetAttributes(attribute.String("error.type", p.Code))
		if p.Kind == problem.Internal || p.Kind == problem.Unavailable {
			s.span.SetStatus(codes.Error, "")
		}
	}
	s.span.End()
}

// A Tracer begins traces. Nil: there are none.
type Tracer struct {
	tracer trace.Tracer
	ratio  float64
}

// NewTracer returns a Tracer whose traces go where the provider sends them: a part of all,
// chosen at random, and each whose parent is traced. The provider must take all that is begun.
func NewTracer(p trace.TracerProvider, ratio float64) *Tracer {
	return &Tracer{p.Tracer(scope), ratio}
}

type tracerKey struct{}

// With returns a context in which Begin begins traces.
func (t *Tracer) With(ctx context.Context) context.Context {
	if t == nil {
		return ctx
	}
	return context.WithValue(ctx, tracerKey{}, t)
}

// Begin is Start for what is done for no request, as in the background: if the context belongs
// to no trace, the step may begin one.
func Begin(ctx context.Context, name string, attrs ...Attr) (context.Context, Step) {
	if t, ok := ctx.Value(tracerKey{}).(*Tracer); ok && !trace.SpanContextFromContext(ctx).IsValid() && t.chosen() {
		ctx, span := t.tracer.Start(ctx, name, trace.WithAttributes(attrs...))
		return ctx, Step{span}
	}
	return Start(ctx, name, attrs...)
}

// chosen reports whether a trace without a parent is to be.
func (t *Tracer) chosen() bool { return t.ratio >= 1 || t.ratio > 0 && rand.Float64() < t.ratio }

// Request begins the step of a request that this process answers. The carrier has the headers
// in which another process says of what trace the request is (W3C Trace Context); nil: nobody
// says so who is believed. If the trace is not one that is recorded, its id is passed on all
// the same, and is in the log.
//
// may is false for a request that begins no trace of its own.
func (t *Tracer) Request(ctx context.Context, carrier propagation.TextMapCarrier, may bool) (context.Context, Step) {
	if t == nil {
		return ctx, Step{}
	}
	if carrier != nil {
		ctx = propagation.TraceContext{}.Extract(ctx, carrier)
	}
	parent := trace.SpanContextFromContext(ctx)
	if parent.IsValid() && !parent.IsSampled() || !parent.IsValid() && !(may && t.chosen()) {
		return ctx, Step{}
	}
	ctx, span := t.tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer))
	return ctx, Step{span}
}

// Headers are those by which a request to another process says of what trace it is.
const (
	Parent = "Traceparent"
	State  = "Tracestate"
)

// Inject writes the headers of a request to another process.
func Inject(ctx context.Context, carrier propagation.TextMapCarrier) {
	propagation.TraceContext{}.Inject(ctx, carrier)
}
