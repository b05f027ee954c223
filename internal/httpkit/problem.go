package httpkit

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/state"
	"github.com/watchword-auth/watchword/internal/store"
)

// Problem is the body of every error (RFC 9457 §3), with a stable code.
type Problem struct {
	Type   string `json:"type" doc:"always about:blank; the code says what happened" example:"about:blank"`
	Title  string `json:"title" doc:"the status in words" example:"Unauthorized"`
	Status int    `json:"status" example:"401"`
	Detail string `json:"detail" doc:"one sentence for people"`
	Code   string `json:"code" doc:"stable, for programs" example:"invalid_credentials"`
	// Errors says what is wrong with which part of a request.
	Errors []string `json:"errors,omitempty" doc:"what is wrong with which part of the request"`
}

var statusOf = map[problem.Kind]int{
	problem.Internal:        http.StatusInternalServerError,
	problem.Invalid:         http.StatusUnprocessableEntity,
	problem.Malformed:       http.StatusBadRequest,
	problem.TimedOut:        http.StatusRequestTimeout,
	problem.Unauthenticated: http.StatusUnauthorized,
	problem.Denied:          http.StatusForbidden,
	problem.NotFound:        http.StatusNotFound,
	problem.WrongMethod:     http.StatusMethodNotAllowed,
	problem.Conflict:        http.StatusConflict,
	problem.TooLarge:        http.StatusRequestEntityTooLarge,
	problem.TooMany:         http.StatusTooManyRequests,
	problem.Unavailable:     http.StatusServiceUnavailable,
}

var errFull = problem.New(problem.Unavailable, "database_full",
	"the database has no space left, so that nothing can be written; its operator must make some").After(10 * time.Second)

// ProblemOf returns what a client may read of an error, and the status of an answer that says so.
func ProblemOf(err error) (*problem.Error, int) {
	e := problem.From(err)
	if e.Kind == problem.Unavailable && (errors.Is(err, store.ErrFull) || errors.Is(err, state.ErrFull)) {
		e = errFull // whatever could not be written
	}
	return e, statusOf[e.Kind]
}

// answer is the one place where an error becomes a status, headers and a body.
func answer(err error) (Problem, http.Header) {
	e, status := ProblemOf(err)
	header := http.Header{}
	switch e.Kind {
	case problem.Unauthenticated:
		header.Set("WWW-Authenticate", challenge(e))
	case problem.TooMany, problem.Unavailable:
		header.Set("Retry-After", RetryAfter(e.RetryAfter))
	}
	return Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: e.Detail, Code: e.Code}, header
}

// challenge is the WWW-Authenticate of RFC 6750 §3, and of RFC 9470 §3 where the user has
// to authenticate again. A request that brought no token is told only how to bring one.
func challenge(e *problem.Error) string {
	const bearer = `Bearer realm="watchword"`
	switch {
	case e.MaxAge > 0:
		return bearer + fmt.Sprintf(`, error="insufficient_user_authentication", error_description="%s", max_age="%d"`, e.Code, int64(e.MaxAge/time.Second))
	case slices.Contains([]string{"invalid_token", "token_expired", "token_revoked", "wrong_audience"}, e.Code):
		return bearer + `, error="invalid_token", error_description="` + e.Code + `"`
	}
	return bearer
}

// RetryAfter in whole seconds, at least one (RFC 9110 §10.2.3).
func RetryAfter(d time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(d.Seconds()))))
}

// WriteProblem answers a request with an error. Its cause goes to the log, never
// to the client.
func WriteProblem(w http.ResponseWriter, err error) {
	WriteExtended(w, err, func(p Problem) any { return p })
}

// WriteExtended is WriteProblem for a problem with members of its own (RFC 9457 §3.2).
func WriteExtended(w http.ResponseWriter, err error, extend func(Problem) any) {
	body, header := answer(err)
	NoteCause(w, err)
	for name, values := range header {
		w.Header()[name] = values
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(body.Status)
	_ = json.NewEncoder(w).Encode(extend(body)) // an error means that the client is gone
}
