package accesstoken

import "strings"

// The reasons for which no token is read from a request, for errors.Is.
var (
	ErrNoToken       = &Error{Code: "token_missing", Detail: "send an access token: Authorization: Bearer <token>"}
	ErrSeveralTokens = &Error{Code: "invalid_request", Detail: "the request has several Authorization headers"}
)

// Bearer returns the token in a request's Authorization headers (RFC 6750 §2.1, RFC 9110
// §11.4): the scheme in any case, one or more spaces, the token. Spaces and tabs around the
// whole are no part of it. There must be exactly one such header, because a service behind
// this one might read another of several. The token is not looked at.
func Bearer(authorization []string) (token string, err error) {
	if len(authorization) > 1 {
		return "", ErrSeveralTokens
	}
	if len(authorization) == 0 {
		return "", ErrNoToken
	}
	scheme, token, _ := strings.Cut(strings.Trim(authorization[0], " \t"), " ")
	if token = strings.TrimLeft(token, " "); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", ErrNoToken
	}
	return token, nil
}
