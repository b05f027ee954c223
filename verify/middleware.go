package verify

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Require lets a request through to next only with a good token in its
// Authorization header (RFC 6750 §2.1) that meets every requirement:
//
//	verifier.Require(dock, verify.Claim("ship", "acc"))
//	verifier.Require(news, verify.FailOpen)
//
// All other requests are answered with problem details (RFC 9457): 401, 403, or 503 if it
// is not known whether the token is good. If all that a good token lacks is an authentication
// (FreshAuth, AMR, ACR), the answer is 401 with the challenge of RFC 9470; if it lacks a claim
// as well, 403, because authenticating again would not help. If all that it lacks are scopes
// (Scope), the challenge of the 403 names them; if it lacks both, that of RFC 9470 does. With
// Config.Resource, each challenge says where the metadata are (RFC 9728 §5.1).
func (v *Verifier) Require(next http.Handler, conditions ...Condition) http.Handler {
	c := v.conditions(conditions)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := Bearer(r.Header["Authorization"])
		if err != nil {
			v.refuse(w, err)
			return
		}
		t, err := v.verify(r.Context(), raw, c)
		if err != nil {
			v.refuse(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(NewContext(r.Context(), t)))
	})
}

type contextKey struct{}

// NewContext returns a context that carries a verified token, as Require makes it. It is
// for servers that are not net/http.
func NewContext(ctx context.Context, t *accesstoken.Token) context.Context {
	return context.WithValue(ctx, contextKey{}, t)
}

// FromContext returns the token that Require has let through.
func FromContext(ctx context.Context) (*accesstoken.Token, bool) {
	t, ok := ctx.Value(contextKey{}).(*accesstoken.Token)
	return t, ok
}

// Bearer returns the token in a request's Authorization headers, as accesstoken.Bearer does.
func Bearer(authorization []string) (token string, err error) {
	return accesstoken.Bearer(authorization)
}

// refuse answers with a problem and with the challenge of RFC 6750 §3 or RFC 9470 §3, which
// says where the metadata of RFC 9728 §5.1 are.
func (v *Verifier) refuse(w http.ResponseWriter, err error) {
	e := &accesstoken.Error{}
	if !errors.As(err, &e) {
		e = ErrKeysUnavailable
	}
	status, challenge, parameters := http.StatusUnauthorized, "invalid_token", ""
	switch {
	case errors.Is(e, accesstoken.ErrNoToken):
		challenge = "" // without a token there is no error code (RFC 6750 §3.1)
	case errors.Is(e, accesstoken.ErrSeveralTokens):
		status, challenge = http.StatusBadRequest, "invalid_request"
	case errors.Is(e, ErrForbidden):
		status, challenge = http.StatusForbidden, "insufficient_scope"
		if lacking := (&InsufficientScope{}); errors.As(e, &lacking) {
			parameters = scopeParameter(lacking.Scope)
		}
	case errors.Is(e, ErrReauthenticate):
		challenge = "insufficient_user_authentication"
		if again := (&Reauthentication{}); errors.As(e, &again) {
			parameters = again.parameters()
		}
	case errors.Is(e, ErrStale), errors.Is(e, ErrKeysUnavailable):
		status = http.StatusServiceUnavailable
	}
	h := w.Header()
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	} else {
		h.Set("WWW-Authenticate", v.challenge(challenge, e.Code)+parameters+v.whereMetadata)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// An error means that the client has gone.
	_ = json.NewEncoder(w).Encode(problem{"about:blank", http.StatusText(status), status, e.Detail, e.Code})
}

func (v *Verifier) challenge(code, description string) string {
	c := `Bearer realm="` + v.cfg.Issuer + `"`
	if code != "" {
		c += `, error="` + code + `", error_description="` + description + `"`
	}
	return c
}

type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
}
