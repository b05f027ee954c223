package account

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const (
	// sessionsAtOnce is how many sessions a page has.
	sessionsAtOnce = 20
	// emptyPages is how many pages without a live session are passed over at once.
	emptyPages = 10
)

// A signedIn is a session as a page shows it.
type signedIn struct {
	session.Session
	Device  string
	Methods string
	This    bool // the one of this visit
}

type sessionList struct {
	Message page.Message
	Items   []signedIn
	Pages   page.Pages
	First   bool // this is the first page
}

// others reports whether the list has a session besides that of this visit, or may have one.
func (l sessionList) others() bool {
	return !l.First || l.Pages.Next != "" || slices.ContainsFunc(l.Items, func(s signedIn) bool { return !s.This })
}

func (f *face) sessions(v *page.Visit) error { return f.showSessions(v, page.Message{}) }

func (f *face) showSessions(v *page.Visit, m page.Message) error {
	after := ""
	if v.Request.Method == http.MethodGet {
		after = v.Field("after")
	}
	l := sessionList{Message: m, First: after == ""}
	if !l.First {
		l.Pages.First = sessionsPath
	}
	for range emptyPages {
		live, next, err := f.Login.ListSessions(v.Request.Context(), v.By.Token, "", after, sessionsAtOnce, v.Client)
		if err != nil {
			return err
		}
		for _, one := range live {
			l.Items = append(l.Items, f.signedIn(v, one))
		}
		l.Pages.Next = ""
		if after = next; next == "" {
			break
		}
		l.Pages.Next = with(sessionsPath, "after", next)
		if len(l.Items) > 0 {
			break
		}
	}
	return f.show(v, statusOf(m), sessionsPath, v.T("account.sessions.title"), sessionsContent(l))
}

func (f *face) signedIn(v *page.Visit, one session.Session) signedIn {
	return signedIn{
		Session: one, Device: v.Device(one.UserAgent), Methods: methods(v, one.AMR), This: one.ID == v.By.Token.SessionID,
	}
}

func (f *face) askEnd(v *page.Visit) error {
	one, err := f.Login.OwnSession(v.Request.Context(), v.By.Token, v.Field("id"))
	if err != nil {
		return err
	}
	key := "account.end.text"
	if one.ID == v.By.Token.SessionID {
		key = "account.end.this"
	}
	return f.show(v, http.StatusOK, sessionsPath, v.T("account.end.title"), page.Confirm(page.Confirmation{
		Action: sessionsPath + "/end", Fields: map[string]string{"id": one.ID}, Cancel: sessionsPath, Danger: true,
		Text: v.T(key, "device", v.Device(one.UserAgent), "address", page.Readable(one.Address)), Button: v.T("account.end.button"),
	}))
}

func (f *face) end(v *page.Visit) error {
	id := v.Field("id")
	err := f.Login.EndSession(v.Request.Context(), v.By.Token, id, v.Client)
	if problem.From(err).Kind == problem.NotFound { // as when the form is sent twice
		m, err := refusal(v, err)
		if err != nil {
			return err
		}
		return f.showSessions(v, m)
	}
	if err != nil {
		return err
	}
	if id == v.By.Token.SessionID {
		return f.signedOut(v, "account.end.done.this")
	}
	v.Flash(page.Success, v.T("account.end.done"))
	return v.Redirect(sessionsPath)
}

func (f *face) askEndOthers(v *page.Visit) error {
	return f.show(v, http.StatusOK, sessionsPath, v.T("account.end_others.title"), page.Confirm(page.Confirmation{
		Action: sessionsPath + "/end-others", Cancel: sessionsPath, Danger: true,
		Text: v.T("account.end_others.text"), Button: v.T("account.end_others.button"),
	}))
}

func (f *face) endOthers(v *page.Visit) error {
	if err := f.Login.EndOtherSessions(v.Request.Context(), v.By.Token, v.Client); err != nil {
		return err
	}
	v.Flash(page.Success, v.T("account.end_others.done"))
	return v.Redirect(sessionsPath)
}

func (f *face) askEndAll(v *page.Visit) error {
	return f.show(v, http.StatusOK, sessionsPath, v.T("account.end_all.title"), page.Confirm(page.Confirmation{
		Action: sessionsPath + "/end-all", Cancel: sessionsPath, Danger: true,
		Text: v.T("account.end_all.text"), Button: v.T("account.end_all.button"),
	}))
}

// endAll ends the others first: if that fails, the visitor still has a session to try again with.
func (f *face) endAll(v *page.Visit) error {
	ctx := v.Request.Context()
	if err := f.Login.EndOtherSessions(ctx, v.By.Token, v.Client); err != nil {
		return err
	}
	if err := f.Login.EndSession(ctx, v.By.Token, v.By.Token.SessionID, v.Client); err != nil && problem.From(err).Kind != problem.NotFound {
		return err
	}
	return f.signedOut(v, "account.end_all.done")
}

func (f *face) signedOut(v *page.Visit, key string) error {
	v.ClearSession()
	v.Flash(page.Success, v.T(key))
	return v.Redirect("/signin?" + url.Values{"return": {overviewPath}}.Encode())
}
