package cluster

import (
	"crypto/hmac"
	"encoding/base64"
	"net/http"

	"go.opentelemetry.io/otel/propagation"

	"github.com/watchword-auth/watchword/internal/trace"
)

// HeaderTraceMAC has a MAC over the nonce of a question and the trace that it is of, in
// base64url: a stranger must not add to a trace, nor begin one.
const HeaderTraceMAC = "Watchword-Trace-MAC"

// traced says in a question that has the nonce of which trace it is, if it is of one.
func (s *secret) traced(r *http.Request, nonce string) {
	trace.Inject(r.Context(), propagation.HeaderCarrier(r.Header))
	if parent := r.Header.Get(trace.Parent); parent != "" {
		r.Header.Set(HeaderTraceMAC, base64.RawURLEncoding.EncodeToString(s.trace(nonce, parent, r.Header.Get(trace.State))))
	}
}

// trace is the MAC of the trace that a question is of.
func (s *secret) trace(nonce, parent, state string) []byte {
	return sum(s.traces, nonce, parent, state)
}

// VouchesTrace reports whether a request is the question of a replica of this cluster which is
// of the trace that it names.
func (c *Cluster) VouchesTrace(r *http.Request) bool {
	mac := r.Header.Get(HeaderTraceMAC)
	nonce := r.Header.Get(HeaderNonce)
	if mac == "" || !validNonce(nonce) || len(r.Header[trace.Parent]) != 1 || len(r.Header[trace.State]) > 1 {
		return false
	}
	got, err := base64.RawURLEncoding.Strict().DecodeString(mac)
	return err == nil && hmac.Equal(got, c.secret.trace(nonce, r.Header.Get(trace.Parent), r.Header.Get(trace.State)))
}

// VouchesTrace returns false: there is no other replica.
func (*Alone) VouchesTrace(*http.Request) bool { return false }
