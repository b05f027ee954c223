package admin

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const (
	auditPath   = "/admin/audit"
	auditExport = auditPath + "/export"
)

func (f *face) mountAudit() {
	f.get(auditPath, f.audit)
	f.get(auditExport, f.exportAudit)
}

// actions are those of the audit trail, in words.
var actions = map[string]string{
	"audit.broken":       "Audit trail changed by hand",
	"audit.export":       "Audit trail exported",
	"claim.create":       "Claim created",
	"claim.delete":       "Claim deleted",
	"claim.update":       "Claim changed",
	"group.add_claim":    "Claim given to a group",
	"group.create":       "Group created",
	"group.delete":       "Group deleted",
	"group.remove_claim": "Claim taken from a group",
	"group.update":       "Group changed",
	"init":               "Init file applied",
	"key.adopt":          "Signing key adopted",
	"key.create":         "Signing key made",
	"key.revoke":         "Signing key revoked",
	"key.rotate":         "Signing keys rotated",
	"limit.lift":         "Limits lifted",
	"lockout":            "Many failures: attempts wait",
	"login":              "Sign-in",
	"logout":             "Sign-out",
	"mfa.backup_code":    "Backup code used",
	"mfa.enrol":          "Second factor set up",
	"mfa.passkey":        "Warning about a passkey",
	"mfa.remove":         "Second factor removed",
	"mfa.rename":         "Passkey renamed",
	"mfa.reset":          "Second factors reset",
	"renew":              "Session renewed",
	"revoke":             "Revocation",
	"session_end":        "Session ended",
	"session_end_all":    "All sessions of a user ended",
	"session_end_others": "Other sessions ended",
	"spraying":           "Many failures at many accounts",
	"step_up":            "Step-up",
	"storage.rekey":      "Storage key changed",
	"storage.restore":    "Backup restored",
	"storage.separate":   "Installation separated from its copy",
	"user.create":        "User created",
	"user.delete":        "User deleted",
	"user.join":          "User joined a group",
	"user.leave":         "User left a group",
	"user.password":      "Password changed",
	"user.recover":       "Account recovered",
	"user.recovery":      "Recovery link made",
	"user.update":        "User changed",
	"users.export":       "Users exported",
	"users.import":       "Users imported",
}

// An auditFilter is what is looked for, as it was typed.
type auditFilter struct{ Actor, Target, Action, Outcome, Address, Since, Until string }

func (v *visit) auditFilter() auditFilter {
	return auditFilter{
		v.Field("actor"), v.Field("target"), v.Field("action"), v.Field("outcome"), v.Field("address"), v.Field("since"), v.Field("until"),
	}
}

// query are the names and values of a link to what is looked for.
func (a auditFilter) query(more ...string) []string {
	return append([]string{
		"actor", a.Actor, "target", a.Target, "action", a.Action, "outcome", a.Outcome, "address", a.Address, "since", a.Since, "until", a.Until,
	}, more...)
}

type auditView struct {
	Filter  auditFilter
	Message page.Message
	Wrong   string // the name of the field that is wrong
	Events  []store.AuditEvent
	Names   map[string]string
	Pages   page.Pages
	MayOpen bool
	Chain   audit.Status
}

// shownProblems is how many problems of the chain the page shows. The command shows all.
const shownProblems = 10

// wrong is what is wrong with a field; empty: nothing.
func (l auditView) wrong(field string) string {
	if l.Wrong == field {
		return l.Message.Text
	}
	return ""
}

// A wrongField is an error of one field of a form.
type wrongField struct {
	field string
	error
}

func (w wrongField) Unwrap() error { return w.error }

var errNoName = problem.New(problem.Invalid, "invalid_request", "this is no user's id, and whoever looks for a name needs the permission users:read")

var errNoActor = problem.New(problem.Invalid, "invalid_request", "no user has this name; of one who is gone, type the id")

// auditQuery reads what is looked for. Names of users become their ids, if the visitor may see
// users.
func (f *face) auditQuery(v *visit, a auditFilter) (audit.Query, error) {
	q := audit.Query{Action: a.Action, Outcome: a.Outcome, Address: a.Address}
	var err error
	if q.Actor, err = f.personID(v, a.Actor); errors.Is(err, directory.ErrUserNotFound) {
		err = errNoActor
	} else if q.Actor != "" && uuid.Validate(q.Actor) != nil { // all users have such ids
		err = errNoName
	}
	if err != nil {
		return q, wrongField{"actor", err}
	}
	// What is no user's name is the id of something else.
	if q.Target, err = f.personID(v, a.Target); errors.Is(err, directory.ErrUserNotFound) {
		q.Target, err = a.Target, nil
	}
	if err != nil {
		return q, wrongField{"target", err}
	}
	if q.Since, err = readTime(a.Since); err != nil {
		return q, wrongField{"since", err}
	}
	if q.Until, err = readTime(a.Until); err != nil {
		return q, wrongField{"until", err}
	}
	return q, nil
}

// personID returns the id of a user, named by id or username.
func (f *face) personID(v *visit, name string) (string, error) {
	switch {
	case name == "", uuid.Validate(name) == nil:
		return name, nil
	case strings.EqualFold(name, v.User.Username):
		return v.User.ID, nil
	case !v.can(directory.UsersRead):
		return name, nil
	}
	u, err := f.Directory.User(v.Request.Context(), v.Actor(), name)
	return u.ID, err
}

func (f *face) audit(v *visit) error {
	l := auditView{Filter: v.auditFilter(), MayOpen: v.can(directory.UsersRead)}
	chain, err := f.Directory.AuditChain(v.Request.Context(), v.Actor())
	if err != nil {
		return err
	}
	l.Chain = chain
	q, err := f.auditQuery(v, l.Filter)
	if err == nil {
		q.After, q.Limit = v.Field("after"), rowsAtOnce
		err = f.auditPage(v, q, &l)
	}
	if err != nil && v.can(directory.AuditRead) {
		wrong := wrongField{}
		errors.As(err, &wrong)
		return v.retry(err, func(m page.Message) page.Layout {
			return auditLayout(auditView{Filter: l.Filter, Message: m, Wrong: wrong.field, Chain: chain})
		})
	}
	if err != nil {
		return err
	}
	return v.show(auditLayout(l))
}

func auditLayout(l auditView) page.Layout {
	return page.Layout{Title: "Audit trail", Active: auditPath, Content: auditContent(l)}
}

func (f *face) auditPage(v *visit, q audit.Query, l *auditView) error {
	list, err := f.Directory.AuditEvents(v.Request.Context(), v.Actor(), q)
	if err != nil {
		return err
	}
	l.Events = list.Items
	l.Pages = pagesOf(auditPath, q.After, list.Next, l.Filter.query()...)
	ids := make([]string, 0, 2*len(l.Events))
	for _, e := range l.Events {
		ids = append(ids, e.Actor, e.Target)
	}
	l.Names, err = f.names(v, ids...)
	return err
}

// forms are those in which the trail is exported: what they are called, and their media types.
var forms = map[audit.Form]struct{ name, media string }{
	audit.CSV:       {"csv", "text/csv; charset=utf-8; header=present"},
	audit.JSONLines: {"jsonl", "application/jsonl; charset=utf-8"},
}

func (f *face) exportAudit(v *visit) error {
	q, err := f.auditQuery(v, v.auditFilter())
	if err != nil {
		return err
	}
	form := audit.Form(v.Field("form"))
	file := &exportFile{v: v, media: forms[form].media, name: "watchword-audit-" + f.Now().UTC().Format("20060102T150405Z") + "." + forms[form].name}
	err = f.Directory.ExportEvents(v.Request.Context(), v.Actor(), file, form, q)
	if err == nil {
		file.begin() // it may be empty
		return nil
	}
	if !file.begun {
		return err
	}
	// The browser must not take a part for the whole.
	httpkit.NoteCause(v.Writer, err)
	panic(http.ErrAbortHandler)
}

// A exportFile is a file that goes to the browser as it is written.
type exportFile struct {
	v           *visit
	media, name string
	begun       bool
}

func (d *exportFile) begin() {
	if d.begun {
		return
	}
	d.begun = true
	h := d.v.Writer.Header()
	h.Set("Content-Type", d.media)
	h.Set("Content-Disposition", `attachment; filename="`+d.name+`"`)
	d.v.Writer.WriteHeader(http.StatusOK)
}

// Write writes a piece, for which the browser has httpkit.WriteTimeout.
func (d *exportFile) Write(b []byte) (int, error) {
	d.begin()
	// A writer that knows no deadlines has none to extend.
	_ = http.NewResponseController(d.v.Writer).SetWriteDeadline(time.Now().Add(httpkit.WriteTimeout))
	return d.v.Writer.Write(b)
}

// outcomes are what became of an action, in words.
var outcomes = []page.Option{{Value: "", Text: "Any"}, {Value: audit.OK, Text: "Done"}, {Value: audit.Denied, Text: "Denied"}, {Value: audit.Failed, Text: "Failed"}}

func outcomeText(outcome string) string {
	for _, o := range outcomes {
		if o.Value == outcome {
			return o.Text
		}
	}
	return outcome
}

func outcomeBadge(outcome string) page.BadgeKind {
	switch outcome {
	case audit.OK:
		return page.Good
	case audit.Denied:
		return page.Caution
	}
	return page.Bad
}

func actionText(action string) string {
	if text, ok := actions[action]; ok {
		return text
	}
	return action
}

// actionNames are the names of actions, in order.
func actionNames() []string {
	var names []string
	for name := range actions {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// details are words of the trail's details, in those of people.
var details = map[string]string{
	"account":                   "of an account",
	"address":                   "of an address",
	"beyond_own_rights":         "it touches rights that they do not hold",
	"csv":                       "as CSV",
	"invalid_credentials":       "wrong username or password",
	"invalid_code":              "wrong code",
	"jsonl":                     "as JSON Lines",
	"permission_missing":        "they lack the right",
	"reauthentication_required": "they signed in too long ago for this",
	"storage_unavailable":       "the storage did not answer",
	"too_many_attempts":         "too many attempts",
	"user_disabled":             "the user is disabled",
	"hwk":                       "passkey",
	"otp":                       "code",
	"pwd":                       "password",
	"swk":                       "passkey",
	"mfa":                       "two factors",
}

// detailText is a detail with the words that have others for people. What a person has typed
// stays as it is: it is the whole detail, or follows a colon.
func detailText(e store.AuditEvent) string {
	if e.Action == "login" || e.Action == "step_up" {
		if methods := strings.Fields(e.Detail); !slices.ContainsFunc(methods, func(m string) bool { return details[m] == "" }) {
			for i, m := range methods {
				methods[i] = details[m]
			}
			return strings.Join(methods, ", ")
		}
	}
	parts := strings.Split(e.Detail, "; ")
	for i, part := range parts {
		if text, ok := details[part]; ok {
			parts[i] = text
		}
	}
	return strings.Join(parts, "; ")
}
