package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/httpkit"
)

// Peers answers what only other replicas may ask.
type Peers struct {
	// Answer answers a peer that chose the nonce and asks whether a token is accepted, and
	// returns what authenticates the answer (package cluster), or an error for the peer.
	Answer func(nonce string, q cluster.TokenQuestion, accepts func(token string) (bool, error)) (body []byte, instance, mac string, err error)
	// Accepts reports whether this replica accepts a token of the cluster.
	Accepts func(ctx context.Context, token string) (bool, error)
	// MutualTLS: a peer is answered only if it has shown a certificate that the
	// listener has verified.
	MutualTLS bool
}

// Mount adds the route.
func (p *Peers) Mount(api *httpkit.API) {
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: cluster.TokenPath, ID: "cluster-verify", Tag: "cluster",
		Summary:    "Whether this replica accepts a token; for the other replicas of its cluster, which telemetry.canary has ask",
		Errors:     []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound},
		Parameters: []*huma.Param{httpkit.NonceHeader},
		Body:       cluster.TokenQuestion{}, Status: http.StatusOK, Answer: cluster.TokenAnswer{}, Type: httpkit.JSON,
	}, p.verify)
}

func (p *Peers) verify(w http.ResponseWriter, r *http.Request) {
	if p.MutualTLS && !httpkit.ShowedCertificate(r) {
		httpkit.WriteProblem(w, httpkit.ErrNoCertificate)
		return
	}
	var question cluster.TokenQuestion
	if err := httpkit.ReadJSON(w, r, &question); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	body, instance, mac, err := p.Answer(r.Header.Get(cluster.HeaderNonce), question, func(token string) (bool, error) {
		return p.Accepts(r.Context(), token)
	})
	if err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	writePeer(w, httpkit.JSON, body, instance, mac)
}

// writePeer answers a peer.
func writePeer(w http.ResponseWriter, kind string, body []byte, instance, mac string) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store") // it is for this nonce
	h.Set(cluster.HeaderInstance, instance)
	h.Set(cluster.HeaderMAC, mac)
	_, _ = w.Write(body) // an error means that the peer is gone; it asks again
}
