package store

import "context"

// A Subject is a user with their claims, as of one moment.
type Subject struct {
	User   User
	Claims []Claim
}

// A WantedSubject is a user that a caller will need next. What is read for the caller before,
// and belongs to that user, may bring the user along, in the same statement.
type WantedSubject struct {
	found *Subject
}

type wantedKey struct{}

// WithWantedSubject returns a context for a caller that reads something which belongs to a
// user, and then reads the user. The context is used by one goroutine at a time.
func WithWantedSubject(ctx context.Context) context.Context {
	return context.WithValue(ctx, wantedKey{}, &WantedSubject{})
}

// SubjectWanted returns the WantedSubject of a context, or nil.
func SubjectWanted(ctx context.Context) *WantedSubject {
	w, _ := ctx.Value(wantedKey{}).(*WantedSubject)
	return w
}

// Put notes what came along; nil: nothing did.
func (w *WantedSubject) Put(s *Subject) { w.found = s }

// Take returns the user with the id, if it came along with what was read last. It returns the
// user once: who asks again wants to know what has changed.
func (w *WantedSubject) Take(id string) (Subject, bool) {
	if w == nil || w.found == nil || w.found.User.ID != id {
		return Subject{}, false
	}
	s := *w.found
	w.found = nil
	return s, true
}
