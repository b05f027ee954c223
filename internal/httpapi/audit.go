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

// AuditChain says whether the audit trail is what was sealed, as far as the replica that answers
// knows.
type AuditChain struct {
	State   string      `json:"state" enum:"holds,unchecked,broken,off" doc:"holds: the last check found nothing wrong; unchecked: this replica has not checked it yet since its start, which takes some minutes; broken: something has been changed, deleted or added; off: there is no key for seals, see storage.key and cluster.secret"`
	Newest  *AuditSeal  `json:"newest,omitempty" doc:"the newest seal; missing: there is none yet"`
	Faults  int         `json:"faults" doc:"seals that this replica found to be changed or gone while it went on with the chain"`
	Checked *AuditCheck `json:"checked,omitempty" doc:"the last check of the whole trail; missing: there was none yet"`
}

// AuditSeal names a seal. Whoever keeps it elsewhere can have it looked for later (watchword audit
// verify --head).
type AuditSeal struct {
	Seq    int64        `json:"seq"`
	Digest string       `json:"digest" doc:"SHA-256 in hex"`
	At     httpkit.Time `json:"at"`
}

// AuditCheck is what a check of the whole trail has found.
type AuditCheck struct {
	At       httpkit.Time   `json:"at"`
	Seals    int            `json:"seals"`
	Events   int            `json:"events" doc:"that are as they were sealed"`
	Waiting  int            `json:"waiting" doc:"events that were too young to be sealed"`
	Found    int            `json:"found" doc:"how many problems there are"`
	Problems []AuditProblem `json:"problems" doc:"the first 100 of them"`
}

// AuditProblem is a difference between the trail and its seals.
type AuditProblem struct {
	Seal  int64  `json:"seal,omitempty" doc:"number of the seal that it is about"`
	Event string `json:"event,omitempty" doc:"id of the event that it is about"`
	Text  string `json:"text"`
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

// Mount adds the routes.
func (a *Audit) Mount(api *httpkit.API) {
	httpkit.Register(api, endpoint(http.MethodGet, "/api/audit", "audit", "list-audit-events", "Who did what, newest first"),
		func(ctx context.Context, c httpkit.Caller, in *auditQuery) (*output[AuditList], error) {
			l, err := a.Directory.AuditEvents(ctx, c.Actor(), audit.Query(*in))
			return answerWith(auditList, l, err)
		})
	httpkit.Register(api, endpoint(http.MethodGet, "/api/audit/chain", "audit", "get-audit-chain", "Whether the audit trail is what was sealed"),
		func(ctx context.Context, c httpkit.Caller, _ *struct{}) (*output[AuditChain], error) {
			s, err := a.Directory.AuditChain(ctx, c.Actor())
			return answerWith(AuditChainOf, s, err)
		})
}

// AuditChainOf is what a replica knows of the chain, as the API shows it.
func AuditChainOf(s audit.Status) AuditChain {
	c := AuditChain{State: string(s.State()), Faults: s.Faults}
	if s.Newest.Seq > 0 {
		c.Newest = &AuditSeal{Seq: s.Newest.Seq, Digest: s.Newest.Digest, At: httpkit.At(s.At)}
	}
	if !s.CheckedAt.IsZero() {
		r := AuditCheckOf(s.CheckedAt, s.Checked)
		c.Checked = &r
	}
	return c
}

// AuditCheckOf is a check, as the API and the command that checks show it.
func AuditCheckOf(at time.Time, r audit.Report) AuditCheck {
	return AuditCheck{
		At: httpkit.At(at), Seals: r.Seals, Events: r.Events, Waiting: r.Waiting, Found: r.Found,
		Problems: views(func(p audit.Problem) AuditProblem { return AuditProblem(p) }, r.Problems),
	}
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
