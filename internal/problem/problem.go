package problem

import (
	"errors"
	"fmt"
	"time"
)

// A Kind says whose fault it is and so which HTTP status it becomes.
type Kind int

const (
	Internal        Kind = iota // 500: ours; the detail is not shown
	Invalid                     // 422: the request can never work as it is
	Malformed                   // 400: the request cannot be read
	TimedOut                    // 408: the client sent too slowly
	Unauthenticated             // 401
	Denied                      // 403
	NotFound                    // 404
	WrongMethod                 // 405
	Conflict                    // 409
	TooLarge                    // 413
	TooMany                     // 429, with RetryAfter
	Unavailable                 // 503, with RetryAfter
)

// An Error is an error that a client may be told about.
type Error struct {
	Kind       Kind
	Code       string        // stable, snake_case: "invalid_credentials"
	Detail     string        // one sentence for people; nothing secret
	RetryAfter time.Duration // for TooMany and Unavailable; zero means one second
	MaxAge     time.Duration // of the authentication that an Unauthenticated asks for (RFC 9470 §3); zero: any will do
	Cause      error         // for the log alone
}

// New makes an Error.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Because returns a copy of e with the cause.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// After returns a copy of e that says when to try again.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Within returns a copy of e that says how old the authentication may be.
func (e *Error) Within(maxAge time.Duration) *Error {
	c := *e
	c.MaxAge = maxAge
	return &c
}

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

// From finds the Error in err; anything else is Internal, with err as its cause.
func From(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Internal, Code: "internal", Detail: "something went wrong here; the log says what", Cause: err}
}
