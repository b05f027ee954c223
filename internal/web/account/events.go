package account

import (
	"net/http"
	"regexp"
	"strings"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const (
	// eventsAtOnce is how many events a page has.
	eventsAtOnce = 25
	// maxEventDetail bounds what a page shows of a detail that it has no words for, in characters.
	maxEventDetail = 200
)

// An event is one of the audit trail in plain words.
type event struct {
	store.AuditEvent
	What, By, Detail string
}

func (f *face) events(v *page.Visit) error {
	var events []event
	var pages page.Pages
	q := audit.Query{After: v.Field("after"), Limit: eventsAtOnce}
	if q.After != "" {
		pages.First = eventsPath
	}
	for range emptyPages {
		list, err := f.Directory.OwnEvents(v.Request.Context(), v.Actor(), q)
		if err != nil {
			return err
		}
		for _, e := range list.Items {
			events = append(events, inWords(v, e))
		}
		pages.Next = ""
		if q.After = list.Next; list.Next == "" {
			break
		}
		pages.Next = with(eventsPath, "after", list.Next)
		if len(events) > 0 {
			break
		}
	}
	return f.show(v, http.StatusOK, eventsPath, v.T("account.events.title"), eventsContent(events, pages))
}

func inWords(v *page.Visit, e store.AuditEvent) event {
	own := v.By.Token.Subject
	action, ok := "", false
	// What the visitor has done to others has the same name as what was done to them.
	if e.Actor == own && e.Target != own {
		action, ok = words(v, "account.event."+e.Action+".others")
	}
	if !ok {
		if action, ok = words(v, "account.event."+e.Action); !ok {
			action = v.T("account.event.unknown", "action", page.Readable(e.Action))
		}
	}
	by := "account.events.by.other"
	switch {
	case e.Actor == own:
		by = "account.events.by.self"
	case e.Actor == "" && e.Outcome != audit.OK:
		by = "account.events.by.nobody"
	case e.Actor == "":
		by = "account.events.by.service"
	}
	return event{e, action, v.T(by), detail(v, e)}
}

// several is the detail of an event that stands for several (audit.Trail.RecordOwn).
var several = regexp.MustCompile(`^([0-9]+) times; (.*)$`)

// detail says in the visitor's language what an event has besides its action.
func detail(v *page.Visit, e store.AuditEvent) string {
	if m := several.FindStringSubmatch(e.Detail); m != nil {
		e.Detail = m[2]
		return v.T("account.detail.times", "n", m[1]) + ": " + detail(v, e)
	}
	if e.Action == "login" && e.Outcome == audit.OK {
		if text := methods(v, strings.Fields(e.Detail)); text != "" {
			return text
		}
	}
	if group, ok := strings.CutPrefix(e.Detail, "group "); ok && (e.Action == "user.join" || e.Action == "user.leave") {
		return cut(group)
	}
	if left, ok := strings.CutSuffix(e.Detail, " left"); ok && e.Action == "mfa.backup_code" {
		return v.T("account.codes.left", "n", left)
	}
	if text, ok := words(v, "account.detail."+strings.ReplaceAll(e.Detail, " ", "_")); ok {
		return text
	}
	if text, ok := words(v, "account.error."+e.Detail); ok {
		return text
	}
	return cut(e.Detail)
}

func cut(text string) string {
	if runes := []rune(text); len(runes) > maxEventDetail {
		return string(runes[:maxEventDetail]) + "…"
	}
	return text
}

// outcomes are the badges of what did not end well.
var outcomes = map[string]page.BadgeKind{audit.Denied: page.Caution, audit.Failed: page.Bad}
