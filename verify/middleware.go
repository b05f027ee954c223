package verify

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A Requirement says whether the holder of a token may pass. Any function is one;
// Claim, Any and All make them.
type Requirement func(t *accesstoken.Token) bool

// Claim requires that the token holds the value under the name. A user who has
// several values has them in one claim, joined with commas: "log":"r,w" holds
// both r and w.
func Claim(name, value string) Requirement {
	return func(t *accesstoken.Token) bool { return t.HasValue(name, value) }
}

// Any requires at least one of the requirements; of none, nobody meets one.
func Any(of ...Requirement) Requirement {
	return func(t *accesstoken.Token) bool {
		for _, r := range of {
			if r(t) {
				return true
			}
		}
		return false
	}
}

// All requires every one of the requirements.
func All(of ...Requirement) Requirement {
	return func(t *accesstoken.Token) bool {
		for _, r := range of {
			if !r(t) {
				return false
			}
		}
		return true
	}
}

// Require lets a request through to next only with a good token in its
// Authorization header (RFC 6750 §2.1) that meets every requirement. The others
// are answered with problem details (RFC 9457): 401, 403, or 503 when it is not
// known whether the token is good.
func (v *Verifier) Require(next http.Handler, requirements ...Requirement) http.Handler {
	required := All(requirements...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := bearer(r)
		if err != nil {
			v.refuse(w, err)
			return
		}
		t, err := v.Verify(r.Context(), raw)
		if err != nil {
			v.refuse(w, err)
			return
		}
		if !required(t) {
			v.refuse(w, errForbidden)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, t)))
	})
}

type contextKey struct{}

// FromContext returns the token that Require has let through.
func FromContext(ctx context.Context) (*accesstoken.Token, bool) {
	t, ok := ctx.Value(contextKey{}).(*accesstoken.Token)
	return t, ok
}

var (
	errNoToken   = &accesstoken.Error{Code: "token_missing", Detail: "send an access token: Authorization: Bearer <token>"}
	errTwoTokens = &accesstoken.Error{Code: "invalid_request", Detail: "the request has several Authorization headers"}
	errForbidden = &accesstoken.Error{Code: "forbidden", Detail: "the token lacks a claim that this request needs"}
)

// bearer takes the token from the Authorization header.
func bearer(r *http.Request) (string, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) > 1 {
		return "", errTwoTokens
	}
	if len(headers) == 0 {
		return "", errNoToken
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if token = strings.TrimLeft(token, " "); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errNoToken
	}
	return token, nil
}

// refuse answers with a problem and with the challenge of RFC 6750 §3.
func (v *Verifier) refuse(w http.ResponseWriter, err error) {
	e := &accesstoken.Error{}
	if !errors.As(err, &e) {
		e = ErrKeysUnavailable
	}
	status, challenge := http.StatusUnauthorized, "invalid_token"
	switch {
	case errors.Is(e, errNoToken):
		challenge = "" // who sent no token is told no error
	case errors.Is(e, errTwoTokens):
		status, challenge = http.StatusBadRequest, "invalid_request"
	case errors.Is(e, errForbidden):
		status, challenge = http.StatusForbidden, "insufficient_scope"
	case errors.Is(e, ErrStale), errors.Is(e, ErrKeysUnavailable):
		status = http.StatusServiceUnavailable
	}
	h := w.Header()
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "1")
	} else {
		h.Set("WWW-Authenticate", v.challenge(challenge, e.Code))
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// An error is the client's leaving: there is nobody to tell.
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
