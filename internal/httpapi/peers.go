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
	// Examined answers a doctor whose request has a nonce and asks how this replica is. What it
	// returns is as Answer returns it.
	Examined func(r *http.Request, nonce string, q cluster.ExamineQuestion) (body []byte, instance, mac string, err error)
	// MutualTLS: a peer is answered only if it has shown a certificate that the
	// listener has verified.
	MutualTLS bool
}

// Mount adds the routes.
func (p *Peers) Mount(api *httpkit.API) {
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: cluster.TokenPath, ID: "cluster-verify", Tag: "cluster",
		Summary:    "Whether this replica accepts a token; for the other replicas of its cluster, which telemetry.canary has ask",
		Errors:     []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound},
		Parameters: []*huma.Param{httpkit.NonceHeader},
		Body:       cluster.TokenQuestion{}, Status: http.StatusOK, Answer: cluster.TokenAnswer{}, Type: httpkit.JSON,
	}, p.verify)
	api.Handle(httpkit.Route{
		Method: http.MethodPost, Path: cluster.ExaminePath, ID: "cluster-examine", Tag: "cluster",
		Summary:    "How this replica is; for watchword doctor, and for the other replicas of its cluster",
		Errors:     []int{http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound},
		Parameters: []*huma.Param{httpkit.NonceHeader},
		Body:       cluster.ExamineQuestion{}, Status: http.StatusOK, Answer: cluster.ExamineAnswer{}, Type: httpkit.JSON,
	}, p.examine)
}

func (p *Peers) verify(w http.ResponseWriter, r *http.Request) {
	var question cluster.TokenQuestion
	p.answer(w, r, &question, func(nonce string) (body []byte, instance, mac string, err error) {
		return p.Answer(nonce, question, func(token string) (bool, error) {
			return p.Accepts(r.Context(), token)
		})
	})
}

func (p *Peers) examine(w http.ResponseWriter, r *http.Request) {
	var question cluster.ExamineQuestion
	p.answer(w, r, &question, func(nonce string) (body []byte, instance, mac string, err error) {
		return p.Examined(r, nonce, question)
	})
}

// answer reads a question and answers it.
func (p *Peers) answer(w http.ResponseWriter, r *http.Request, question any, say func(nonce string) (body []byte, instance, mac string, err error)) {
	if p.MutualTLS && !httpkit.ShowedCertificate(r) {
		httpkit.WriteProblem(w, httpkit.ErrNoCertificate)
		return
	}
	if err := httpkit.ReadJSON(w, r, question); err != nil {
		httpkit.WriteProblem(w, err)
		return
	}
	body, instance, mac, err := say(r.Header.Get(cluster.HeaderNonce))
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
