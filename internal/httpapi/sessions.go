package httpapi

import (
	"cmp"
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/session"
)

// Sessions shows users their sessions, and administrators those of other users.
type Sessions struct{ Login *login.Service }

// Session is one sign-in.
type Session struct {
	ID        string       `json:"id" doc:"the sid of its tokens"`
	Current   bool         `json:"current" doc:"whether this request's token belongs to it"`
	CreatedAt httpkit.Time `json:"created_at"`
	RenewedAt httpkit.Time `json:"renewed_at"`
	ExpiresAt httpkit.Time `json:"expires_at" doc:"the end that no renewal moves"`
	Address   string       `json:"address" doc:"of the client at sign-in"`
	UserAgent string       `json:"user_agent" doc:"of the client at sign-in"`
}

// SessionList is a user's sessions, the newest first.
type SessionList struct {
	Sessions []Session `json:"sessions"`
	Next     string    `json:"next,omitempty" doc:"for after; missing on the last page. A page may have fewer sessions than limit, or none, and a next"`
}

// SessionPage asks for a part of the list (exported: huma sees no other embedded
// fields).
type SessionPage struct {
	After string `query:"after" maxLength:"128" doc:"next of the page before"`
	Limit int    `query:"limit" minimum:"0" maximum:"1000" doc:"how many; 0 means 200"`
}

// sessionPage is how many sessions a page has, if the reader does not say.
const sessionPage = 200

// PathID is the id in a path (exported: huma sees no other embedded fields).
type PathID struct {
	ID string `path:"id" maxLength:"128"`
}

type userSessions struct {
	PathID
	SessionPage
}

type sessionsOutput struct{ Body SessionList }

type noContent struct{}

// Mount adds the routes.
func (s *Sessions) Mount(api *httpkit.API) {
	httpkit.Register(api, huma.Operation{
		OperationID: "list-own-sessions", Method: http.MethodGet, Path: "/api/sessions", Tags: []string{"sessions"},
		Summary: "Where I am signed in",
	}, s.listOwn)
	httpkit.Register(api, huma.Operation{
		OperationID: "end-own-session", Method: http.MethodDelete, Path: "/api/sessions/{id}", Tags: []string{"sessions"},
		Summary: "End one of my sessions and revoke its tokens", DefaultStatus: http.StatusNoContent,
	}, s.endOwn)
	httpkit.Register(api, huma.Operation{
		OperationID: "end-other-sessions", Method: http.MethodDelete, Path: "/api/sessions", Tags: []string{"sessions"},
		Summary: "End all my sessions but this one and revoke their tokens", DefaultStatus: http.StatusNoContent,
	}, s.endOthers)
	httpkit.Register(api, httpkit.Administration(huma.Operation{
		OperationID: "list-user-sessions", Method: http.MethodGet, Path: "/api/users/{id}/sessions", Tags: []string{"users"},
		Summary: "Where a user is signed in", Errors: []int{http.StatusForbidden},
	}), s.listOf)
	httpkit.Register(api, httpkit.Administration(huma.Operation{
		OperationID: "end-user-sessions", Method: http.MethodDelete, Path: "/api/users/{id}/sessions", Tags: []string{"users"},
		Summary: "End all sessions of a user and revoke all tokens of the user", DefaultStatus: http.StatusNoContent,
		Errors: []int{http.StatusForbidden},
	}), s.endAllOf)
}

func (s *Sessions) listOwn(ctx context.Context, c httpkit.Caller, in *SessionPage) (*sessionsOutput, error) {
	return s.list(ctx, c, "", *in)
}

func (s *Sessions) endOwn(ctx context.Context, c httpkit.Caller, in *PathID) (*noContent, error) {
	return nil, s.Login.EndSession(ctx, c.Token, in.ID, c.Client)
}

func (s *Sessions) endOthers(ctx context.Context, c httpkit.Caller, _ *struct{}) (*noContent, error) {
	return nil, s.Login.EndOtherSessions(ctx, c.Token, c.Client)
}

func (s *Sessions) listOf(ctx context.Context, c httpkit.Caller, in *userSessions) (*sessionsOutput, error) {
	return s.list(ctx, c, in.ID, in.SessionPage)
}

func (s *Sessions) endAllOf(ctx context.Context, c httpkit.Caller, in *PathID) (*noContent, error) {
	return nil, s.Login.EndAllSessions(ctx, c.Token, in.ID, c.Client)
}

func (s *Sessions) list(ctx context.Context, c httpkit.Caller, user string, page SessionPage) (*sessionsOutput, error) {
	sessions, next, err := s.Login.ListSessions(ctx, c.Token, user, page.After, cmp.Or(page.Limit, sessionPage), c.Client)
	if err != nil {
		return nil, err
	}
	out := &sessionsOutput{Body: SessionList{Sessions: []Session{}, Next: next}} // an empty array, not null
	for _, one := range sessions {
		out.Body.Sessions = append(out.Body.Sessions, sessionView(one, c.Token.SessionID))
	}
	return out, nil
}

func sessionView(s session.Session, current string) Session {
	return Session{
		ID: s.ID, Current: s.ID == current, CreatedAt: httpkit.At(s.CreatedAt), RenewedAt: httpkit.At(s.RenewedAt), ExpiresAt: httpkit.At(s.ExpiresAt),
		Address: s.Address, UserAgent: s.UserAgent,
	}
}
