package sqlstore

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/sqldb"
	"github.com/watchword-auth/watchword/internal/store"
)

// Texts of the trail come from clients, too. A line must not be lost because of
// what is in it, so they are cut to their column, in bytes.
const (
	maxAuditText   = 255
	maxAuditDetail = 4096
)

func readAudit(scan sqldb.Scan) (e store.AuditEvent, err error) {
	var at int64
	err = scan(&e.ID, &at, &e.Actor, &e.Action, &e.Target, &e.Outcome, &e.Address, &e.Detail)
	e.At = sqldb.Time(at)
	return e, err
}

// AppendAudit implements store.Audit.
func (r records) AppendAudit(ctx context.Context, e store.AuditEvent) error {
	_, err := r.q.Exec(ctx, `INSERT INTO audit_events (id, at_time, actor, action, target, outcome, address, detail)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		e.ID, sqldb.Micros(e.At), text(e.Actor, maxAuditText), e.Action, text(e.Target, maxAuditText),
		e.Outcome, text(e.Address, maxAuditText), text(e.Detail, maxAuditDetail))
	return translate(err)
}

// AuditEvents implements store.Audit.
func (r records) AuditEvents(ctx context.Context, query store.AuditQuery) ([]store.AuditEvent, error) {
	sql := "SELECT id, at_time, actor, action, target, outcome, address, detail FROM audit_events WHERE 1 = 1"
	var args []any
	for _, by := range []struct{ where, value string }{
		{" AND id < ?", query.Before},
		{" AND actor = ?", text(query.Actor, maxAuditText)},
		{" AND target = ?", text(query.Target, maxAuditText)},
	} {
		if by.value != "" {
			sql += by.where
			args = append(args, by.value)
		}
	}
	return list(ctx, r.q, readAudit, sql+" ORDER BY id DESC LIMIT ?", append(args, query.Limit)...)
}

// DeleteAuditBefore implements store.Audit.
func (r records) DeleteAuditBefore(ctx context.Context, t time.Time, limit int) (int, error) {
	n, err := r.q.Exec(ctx, r.q.Dialect().DeleteSome("audit_events", "id", "at_time < ?", "at_time"),
		sqldb.Micros(t), limit)
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
