package audit

import (
	"context"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
)

// How many events a page has.
const (
	DefaultPage = 50
	MaxPage     = 200
)

var (
	errLimit   = problem.New(problem.Invalid, "invalid_limit", "a page has 1 to %d items", MaxPage)
	errCursor  = problem.New(problem.Invalid, "invalid_cursor", "this is not where a page ended")
	errOutcome = problem.New(problem.Invalid, "invalid_outcome", "an outcome is %s, %s or %s", OK, Denied, Failed)
	errAddress = problem.New(problem.Invalid, "invalid_address", "an address is one such as 192.0.2.1 or 2001:db8::1")
	errRange   = problem.New(problem.Invalid, "invalid_time_range", "until must be later than since")
)

// A Query asks for a page of the trail. An empty field asks for nothing.
type Query struct {
	Actor   string // user id
	Action  string
	Target  string // id
	Outcome string
	Address string // of the client
	// Since and Until bound the time of an event, which is Since or later and before
	// Until. They count in whole milliseconds.
	Since time.Time
	Until time.Time

	After string // Page.Next of the page before; empty: from the newest event on
	Limit int    // 1 to MaxPage; 0: DefaultPage
}

// A Page is a part of the trail, newest event first.
type Page struct {
	Events []store.AuditEvent
	Next   string // for Query.After; empty: no event is left
}

// Page returns the newest events that q asks for. One call looks at store.AuditScan
// events at most, so that no query costs more than that: a page may have fewer events
// than q.Limit, or none, and a Next. What RecordSoon was given before, on this replica, is
// written before the page is read, as far as it may be.
func (t *Trail) Page(ctx context.Context, q Query) (Page, error) {
	if q.Limit == 0 {
		q.Limit = DefaultPage
	}
	if q.Limit < 0 || q.Limit > MaxPage {
		return Page{}, errLimit
	}
	switch q.Outcome {
	case "", OK, Denied, Failed:
	default:
		return Page{}, errOutcome
	}
	stored := store.AuditQuery{Actor: q.Actor, Action: q.Action, Target: q.Target, Outcome: q.Outcome, Limit: q.Limit}
	if q.Address != "" {
		address, err := netip.ParseAddr(q.Address)
		if err != nil {
			return Page{}, errAddress
		}
		// As package httpkit writes it.
		stored.Address = address.Unmap().WithZone("").String()
	}
	if !q.Since.IsZero() {
		stored.After = idsFrom(q.Since)
	}
	if !q.Until.IsZero() {
		stored.Before = idsFrom(q.Until)
		if stored.Before <= stored.After {
			return Page{}, errRange
		}
	}
	if q.After != "" {
		id, err := uuid.Parse(q.After)
		if err != nil || id.String() != q.After {
			return Page{}, errCursor
		}
		if stored.Before == "" || q.After < stored.Before {
			stored.Before = q.After
		}
	}
	t.storeCounted(ctx, false)
	page, err := t.cfg.Store.AuditEvents(ctx, stored)
	return Page(page), err
}

// Events returns the newest events that q asks for, newest first, 50 unless
// q.Limit says otherwise and never more than 200.
func (t *Trail) Events(ctx context.Context, q store.AuditQuery) ([]store.AuditEvent, error) {
	if q.Limit <= 0 {
		q.Limit = DefaultPage
	}
	q.Limit = min(q.Limit, MaxPage)
	page, err := t.cfg.Store.AuditEvents(ctx, q)
	return page.Events, err
}
