package accesstoken

// An Error says why a token was refused. Code is stable and snake_case; Detail
// is one sentence for people. Neither ever contains the token.
type Error struct {
	Code   string
	Detail string
	Cause  error // for the log; may be nil
}

// The reasons for which a token is refused, for errors.Is. What Check returns is
// a copy of one of them with a more exact Detail.
var (
	ErrMalformed    = &Error{Code: "token_malformed", Detail: "this is not a well-formed access token"}
	ErrType         = &Error{Code: "token_type", Detail: "this is a token of another kind, not an access token"}
	ErrAlgorithm    = &Error{Code: "token_algorithm", Detail: "the token's signature algorithm is not accepted"}
	ErrUnknownKey   = &Error{Code: "token_key_unknown", Detail: "the key that the token names is not known"}
	ErrSignature    = &Error{Code: "token_signature", Detail: "the token's signature is wrong"}
	ErrMissingClaim = &Error{Code: "token_claim_missing", Detail: "the token lacks a required claim"}
	ErrIssuer       = &Error{Code: "token_issuer", Detail: "the token comes from another issuer"}
	ErrAudience     = &Error{Code: "token_audience", Detail: "the token is meant for another audience"}
	ErrExpired      = &Error{Code: "token_expired", Detail: "the token has expired"}
	ErrNotYetValid  = &Error{Code: "token_not_yet_valid", Detail: "the token is not valid yet"}
)

// Error is for the log: it includes the cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Code + ": " + e.Detail + ": " + e.Cause.Error()
	}
	return e.Code + ": " + e.Detail
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is compares by code, so that a package variable matches its copies.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// because returns a copy of e with a more exact detail and a cause.
func (e *Error) because(detail string, cause error) *Error {
	return &Error{Code: e.Code, Detail: detail, Cause: cause}
}
