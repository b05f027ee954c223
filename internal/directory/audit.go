package directory

import (
	"cmp"
	"context"
	"io"
	"slices"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/store"
)

// AuditEvents returns a page of the audit trail, newest event first. A page may have
// fewer events than were asked for, or none, and be followed by another one: see
// audit.Trail.Page.
func (s *Service) AuditEvents(ctx context.Context, actor Actor, q audit.Query) (List[store.AuditEvent], error) {
	if err := s.Authorize(ctx, actor, AuditRead); err != nil {
		return List[store.AuditEvent]{}, err
	}
	page, err := s.Audit.Page(ctx, q)
	return List[store.AuditEvent]{Items: page.Events, Next: page.Next}, fault(err)
}

// OwnEvents returns a page of what the actor did and of what was done to the actor, as
// AuditEvents does. It needs no permission, and asks for no actor and no target. Of what others
// did it shows neither the address nor the detail: these are theirs.
func (s *Service) OwnEvents(ctx context.Context, actor Actor, q audit.Query) (List[store.AuditEvent], error) {
	if err := s.Authorize(ctx, actor, own); err != nil {
		return List[store.AuditEvent]{}, err
	}
	q.Limit = cmp.Or(q.Limit, audit.DefaultPage)
	q.Actor, q.Target = actor.ID, ""
	did, err := s.Audit.Page(ctx, q)
	if err != nil {
		return List[store.AuditEvent]{}, fault(err)
	}
	q.Actor, q.Target = "", actor.ID
	had, err := s.Audit.Page(ctx, q)
	if err != nil {
		return List[store.AuditEvent]{}, fault(err)
	}
	events := append(did.Events, had.Events...)
	slices.SortFunc(events, func(a, b store.AuditEvent) int { return cmp.Compare(b.ID, a.ID) })
	events = slices.CompactFunc(events, func(a, b store.AuditEvent) bool { return a.ID == b.ID })
	// Of what is older than the end of one of the two pages, the page after it may have more.
	next := max(did.Next, had.Next)
	events = slices.DeleteFunc(events, func(e store.AuditEvent) bool { return e.ID < next })
	if len(events) > q.Limit {
		events = events[:q.Limit]
		next = events[q.Limit-1].ID
	}
	for i, e := range events {
		if e.Actor != actor.ID && e.Actor != "" {
			events[i].Address, events[i].Detail = "", ""
		}
	}
	return List[store.AuditEvent]{Items: events, Next: next}, nil
}

// ExportEvents writes the events that q asks for, newest first, page by page: all that there are
// when it begins, so that it ends however many are written meanwhile. q.Limit is not looked at.
// It needs AuditRead for each page, and is in the trail itself. After an error, the file has a
// part of the events.
func (s *Service) ExportEvents(ctx context.Context, actor Actor, w io.Writer, form audit.Form, q audit.Query) error {
	const action = "audit.export"
	if err := s.Authorize(ctx, actor, AuditRead); err != nil {
		s.denied(ctx, actor, action, "", err)
		return err
	}
	file, err := audit.NewWriter(w, form)
	if err != nil {
		return err
	}
	q.Limit = audit.MaxPage
	for first := true; first || q.After != ""; first = false {
		page, err := s.AuditEvents(ctx, actor, q)
		if err != nil {
			return err
		}
		if first {
			s.Audit.Record(ctx, store.AuditEvent{Actor: actor.ID, Action: action, Outcome: audit.OK, Address: actor.Address, Detail: string(form)})
		}
		if err := file.Write(page.Items); err != nil {
			return err
		}
		q.After = page.Next
	}
	return nil
}

// FollowEvents writes the events since a time, the earliest first, and with forever set those that
// come, until ctx ends (audit.Trail.Follow). It needs AuditRead, whenever it writes something, and
// is in the trail itself.
func (s *Service) FollowEvents(ctx context.Context, actor Actor, w io.Writer, form audit.Form, since time.Time, forever bool) error {
	const action = "audit.export"
	if err := s.Authorize(ctx, actor, AuditRead); err != nil {
		s.denied(ctx, actor, action, "", err)
		return err
	}
	file, err := audit.NewWriter(w, form)
	if err != nil {
		return err
	}
	detail := string(form)
	if forever {
		detail += "; followed"
	}
	s.Audit.Record(ctx, store.AuditEvent{Actor: actor.ID, Action: action, Outcome: audit.OK, Address: actor.Address, Detail: detail})
	return fault(s.Audit.Follow(ctx, since, forever, func(events []store.AuditEvent) error {
		if len(events) == 0 {
			return nil
		}
		if err := s.Authorize(ctx, actor, AuditRead); err != nil {
			return err
		}
		return file.Write(events)
	}))
}

// AuditChain returns what this replica knows of the seals of the audit trail. It needs AuditRead.
func (s *Service) AuditChain(ctx context.Context, actor Actor) (audit.Status, error) {
	if err := s.Authorize(ctx, actor, AuditRead); err != nil {
		return audit.Status{}, err
	}
	return s.Audit.ChainStatus(), nil
}
