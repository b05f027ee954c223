package httpkit

import (
	"errors"
	"net/http"

	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

var (
	errNoToken       = problem.New(problem.Unauthenticated, "token_missing", "send the access token as Authorization: Bearer …")
	errSeveralTokens = problem.New(problem.Malformed, "several_tokens", "the request has several Authorization headers")
)

// bearer returns the token of the one Authorization header. Tokens in a query or a body are
// not accepted: they end up in logs.
func bearer(r *http.Request) (string, error) {
	token, err := accesstoken.Bearer(r.Header["Authorization"])
	switch {
	case errors.Is(err, accesstoken.ErrSeveralTokens):
		return "", errSeveralTokens
	case err != nil:
		return "", errNoToken
	}
	return token, nil
}

// AccessToken returns the access token of a request, which may be anything.
func AccessToken(r *http.Request) (string, error) { return bearer(r) }

// Authenticate verifies the access token of a request.
func Authenticate(s *login.Service, r *http.Request) (*accesstoken.Token, error) {
	if c, ok := r.Context().Value(checkedKey{}).(checked); ok {
		if c.err != nil {
			return nil, c.err
		}
		if err := s.Live(r.Context(), c.token); err != nil {
			return nil, err
		}
		return c.token, nil
	}
	token, err := bearer(r)
	if err != nil {
		return nil, err
	}
	return s.Verify(r.Context(), token)
}
