package sqlstore

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

// Texts of the trail come from clients, too. An event must not be lost because of its
// texts, so each is cut to the size of its column, in bytes.
const (
	maxAuditText   = 255
	maxAuditDetail = 4096
)

func readAudit(scan sqldb.Scan) (e store.AuditEvent, err error) {
	var at int64
	err = scan(&e.ID, &at, &e.Actor, &e.Action, &e.Target, &e.Outcome, &e.Address, &e.Detail)
	e.At = timeOf(at)
	return e, err
}

// AppendAudit implements store.Audit.
func (r records) AppendAudit(ctx context.Context, e store.AuditEvent) error {
	_, err := r.q.Exec(ctx, `INSERT INTO audit_events (id, at_time, actor, action, target, outcome, address, detail)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		e.ID, store.Micros(e.At), text(e.Actor, maxAuditText), e.Action, text(e.Target, maxAuditText),
		e.Outcome, text(e.Address, maxAuditText), text(e.Detail, maxAuditDetail))
	return translate(err)
}

const auditColumns = "id, at_time, actor, action, target, outcome, address, detail"

// AuditEvents implements store.Audit.
func (r records) AuditEvents(ctx context.Context, query store.AuditQuery) (store.AuditPage, error) {
	if query.Limit <= 0 {
		return store.AuditPage{}, nil
	}
	actor, target, address := text(query.Actor, maxAuditText), text(query.Target, maxAuditText), text(query.Address, maxAuditText)
	from, args := "audit_events WHERE ", []any{}
	switch { // these two have an index, which is in the order of the ids
	case target != "":
		from, args = "audit_events"+r.q.Dialect().Using("audit_events_target")+" WHERE target = ? AND ", append(args, target)
	case actor != "":
		from, args = "audit_events"+r.q.Dialect().Using("audit_events_actor")+" WHERE actor = ? AND ", append(args, actor)
	}
	from += "id < ? AND id > ?"
	args = append(args, cmp.Or(query.Before, string(utf8.MaxRune)), query.After)
	const order = " ORDER BY id DESC LIMIT ?"

	end := ""
	if query.Action != "" || query.Outcome != "" || address != "" || actor != "" && target != "" {
		var err error
		end, err = one(ctx, r.q, readString, "SELECT id FROM "+from+order+" OFFSET ?", append(args, 1, store.AuditScan-1)...)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return store.AuditPage{}, err
		}
		// The inner limit leaves a planner no other index than that of the first
		// condition. It is twice as high as it need be, for what was written since.
		from = "(SELECT " + auditColumns + " FROM " + from + " AND id >= ?" + order + ") AS seen" +
			" WHERE (? = '' OR actor = ?) AND (? = '' OR action = ?) AND (? = '' OR outcome = ?) AND (? = '' OR address = ?)"
		args = append(args, end, 2*store.AuditScan, actor, actor, query.Action, query.Action, query.Outcome, query.Outcome, address, address)
	}
	events, err := list(ctx, r.q, readAudit, "SELECT "+auditColumns+" FROM "+from+order, append(args, query.Limit+1)...)
	if len(events) > query.Limit {
		events = events[:query.Limit]
		end = events[query.Limit-1].ID
	}
	return store.AuditPage{Events: events, Next: end}, err
}

// AuditRange implements store.Audit.
func (r records) AuditRange(ctx context.Context, after, upto string, limit int) ([]store.AuditEvent, error) {
	return list(ctx, r.q, readAudit, "SELECT "+auditColumns+" FROM audit_events WHERE id > ? AND id <= ? ORDER BY id LIMIT ?", after, upto, limit)
}

// AuditIDs implements store.Audit.
func (r records) AuditIDs(ctx context.Context, after, upto string, limit int) ([]string, error) {
	return list(ctx, r.q, readString, "SELECT id FROM audit_events WHERE id > ? AND id <= ? ORDER BY id LIMIT ?", after, upto, limit)
}

// DeleteAuditBefore implements store.Audit.
func (r records) DeleteAuditBefore(ctx context.Context, t time.Time, limit int) (int, error) {
	n, err := r.q.Exec(ctx, r.q.Dialect().DeleteSome("audit_events", "id", "at_time < ?", "at_time"),
		store.Micros(t), limit)
	return int(n), translate(err)
}

// text makes a column of at most n bytes from any string.
func text(s string, n int) string {
	if !isText(s) {
		s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	}
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
