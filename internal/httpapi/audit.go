package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/store"
)

// Audit shows the audit trail.
type Audit struct{ Directory *directory.Service }

// AuditEvent is one entry of the audit trail.
type AuditEvent struct {
	ID      string       `json:"id"`
	At      httpkit.Time `json:"at"`
	Actor   string       `json:"actor" doc:"user id; empty: no user was known, or it was done on the command line"`
	Action  string       `json:"action" example:"user.create"`
	Target  string       `json:"target" doc:"id of what it was done to"`
	Outcome string       `json:"outcome" enum:"ok,denied,failed"`
	Address string       `json:"address" doc:"of the client"`
	Detail  string       `json:"detail"`
}

// AuditList is a page of the audit trail, newest event first.
type AuditList struct {
	Events []AuditEvent `json:"events"`
	Next   string       `json:"next,omitempty" doc:"for after; missing on the last page. A page may have fewer events than limit, or none, and a next"`
}

type auditQuery struct {
	Actor   string    `query:"actor" maxLength:"256" doc:"id of the user who did it"`
	Action  string    `query:"action" maxLength:"64" doc:"what was done" example:"user.create"`
	Target  string    `query:"target" maxLength:"256" doc:"id of what it was done to"`
	Outcome string    `query:"outcome" enum:"ok,denied,failed"`
	Address string    `query:"address" maxLength:"64" doc:"of the client" example:"192.0.2.1"`
	Since   time.Time `query:"since" doc:"no event that is earlier; in whole milliseconds"`
	Until   time.Time `query:"until" doc:"only events that are earlier; in whole milliseconds"`
	After   string    `query:"after" maxLength:"64" doc:"next of the page before"`
	Limit   int       `query:"limit" minimum:"0" maximum:"200" doc:"how many; 0 means 50"`
}

// Mount adds the route.
func (a *Audit) Mount(api *httpkit.API) {
	httpkit.Register(api, endpoint(http.MethodGet, "/api/audit", "audit", "list-audit-events", "Who did what, newest first"),
		func(ctx context.Context, c httpkit.Caller, in *auditQuery) (*output[AuditList], error) {
			l, err := a.Directory.AuditEvents(ctx, c.Actor(), audit.Query(*in))
			return answerWith(auditList, l, err)
		})
}

func auditList(l directory.List[store.AuditEvent]) AuditList {
	return AuditList{Events: views(AuditEventOf, l.Items), Next: l.Next}
}

// AuditEventOf is an entry as the API, and the command that lists them, show it.
func AuditEventOf(e store.AuditEvent) AuditEvent {
	return AuditEvent{
		ID: e.ID, At: httpkit.At(e.At), Actor: e.Actor, Action: e.Action, Target: e.Target,
		Outcome: e.Outcome, Address: e.Address, Detail: e.Detail,
	}
}
