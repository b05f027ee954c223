package httpkit

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/problem"
)

// JSON is the media type of JSON.
const JSON = "application/json"

// ErrNoCertificate refuses a question of a peer that has to show a certificate.
var ErrNoCertificate = problem.New(problem.Denied, "certificate_needed", "a replica that asks another one shows its certificate here")

// ShowedCertificate reports whether the client has shown a certificate that the listener has
// verified.
func ShowedCertificate(r *http.Request) bool { return r.TLS != nil && len(r.TLS.VerifiedChains) > 0 }

// NonceHeader describes the header with which a peer asks (package cluster).
var NonceHeader = &huma.Param{
	Name: cluster.HeaderNonce, In: "header", Description: "asks a replica of a cluster to authenticate its answer",
	Schema: &huma.Schema{Type: "string", MinLength: new(16), MaxLength: new(128)},
}

// Between describes an integer within bounds.
func Between(least, most float64) *huma.Schema {
	return &huma.Schema{Type: "integer", Minimum: &least, Maximum: &most}
}
