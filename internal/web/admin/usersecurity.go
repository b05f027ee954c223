package admin

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/session"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// A tokenView is what a user's tokens say, and why.
type tokenView struct {
	Claims    []directory.EffectiveClaim
	Hidden    bool // the visitor may not see which groups give what
	Links     bool // the visitor may see the groups
	Audience  string
	Audiences []page.Option
	Preview   login.Preview
	Wrong     page.Message // why there is no preview
	Refused   string       // why the user would get no token
}

func (f *face) userToken(v *visit) error {
	p, err := f.someone(v)
	if err != nil {
		return err
	}
	ctx := v.Request.Context()
	t := tokenView{Hidden: !p.Groups, Links: v.can(directory.GroupsRead), Audience: v.Field("audience")}
	if p.Groups {
		if t.Claims, err = f.Directory.EffectiveClaims(ctx, v.Actor(), p.ID); err != nil {
			return err
		}
	}
	t.Audiences = []page.Option{{Value: "", Text: "The usual one"}, {Value: f.Login.Issuer, Text: f.Login.Issuer + " (this service's own API)"}}
	for _, one := range f.Login.Config.Audience {
		if one != f.Login.Issuer {
			t.Audiences = append(t.Audiences, page.Option{Value: one, Text: one})
		}
	}
	status := http.StatusOK
	if p.Token {
		t.Preview, err = f.Login.Preview(ctx, v.By.Token, p.ID, t.Audience, v.Client)
		if kind := problem.From(err).Kind; err != nil && (kind == problem.Internal || kind == problem.Unauthenticated) {
			return err
		}
		if err != nil {
			t.Wrong = v.Problem(err)
			status = t.Wrong.Status
		}
		if t.Preview.Refused != nil {
			t.Refused = v.Problem(t.Preview.Refused).Text
		}
	}
	return v.Show(status, p.layout("token", userTokenContent(p, t)))
}

// methodNames are the words for second factors.
var methodNames = map[string]string{mfa.TOTP: "Authenticator app", mfa.Passkey: "Passkey", mfa.BackupCode: "Backup codes"}

func factorName(i mfa.Info) string {
	name := cmp.Or(methodNames[i.Method], i.Method)
	if i.Name != "" {
		name += " " + i.Name
	}
	return name
}

func (f *face) userFactors(v *visit) error {
	p, err := f.someone(v)
	if err != nil {
		return err
	}
	l, err := f.factorsOf(v, p)
	if err != nil {
		return err
	}
	return v.show(l)
}

func (f *face) factorsOf(v *visit, p person) (page.Layout, error) {
	o, err := f.Factors.Overview(v.Request.Context(), v.Actor(), p.ID)
	return p.layout("factors", userFactorsContent(p, o)), err
}

func (f *face) askRemoveFactor(v *visit) error {
	p, err := f.changeable(v)
	if err != nil {
		return err
	}
	o, err := f.Factors.Overview(v.Request.Context(), v.Actor(), p.ID)
	if err != nil {
		return err
	}
	id := v.Field("id")
	at := slices.IndexFunc(o.Factors, func(i mfa.Info) bool { return i.ID == id })
	if at < 0 {
		return errNoFactor
	}
	name := factorName(o.Factors[at])
	text := "Removing the second factor “" + name + "” of " + p.Username + " ends their sessions and revokes their tokens."
	if o.Required && len(o.Factors) == 1 {
		text += " They must have one, and will be asked to enrol another at their next sign-in."
	}
	return v.show(p.question("Remove a second factor", page.Confirmation{
		Action: userPath(p.ID) + "/factors/remove", Fields: map[string]string{"id": id}, Cancel: userPath(p.ID) + "/factors",
		Text: text + " This cannot be undone.", Button: "Remove " + name, Danger: true,
	}))
}

var errNoFactor = problem.New(problem.NotFound, "factor_not_found", "the user has no such second factor")

func (f *face) removeFactor(v *visit) error {
	id := v.Field("id")
	if id == "" { // which would remove all of them
		return errNoFactor
	}
	return f.reset(v, id, "The second factor has been removed.")
}

func (f *face) askResetFactors(v *visit) error {
	p, err := f.changeable(v)
	if err != nil {
		return err
	}
	return v.show(p.question("Reset second factors", page.Confirmation{
		Action: userPath(p.ID) + "/factors/reset", Cancel: userPath(p.ID) + "/factors", Danger: true, Button: "Reset the second factors",
		Text: "Resetting the second factors of " + p.Username + " removes their authenticator app, passkeys and backup codes, ends their sessions and revokes their tokens. This cannot be undone.",
	}))
}

func (f *face) resetFactors(v *visit) error {
	return f.reset(v, "", "The second factors have been removed.")
}

func (f *face) reset(v *visit, id, done string) error {
	user := v.Request.PathValue("id")
	if err := f.Factors.Reset(v.Request.Context(), v.Actor(), user, id); err != nil {
		return f.security(v, err, f.factorsOf)
	}
	v.Flash(page.Success, done+" The user's sessions have ended and their tokens are revoked.")
	return v.Redirect(userPath(user) + "/factors")
}

// security shows a part of a user's page with what an error says.
func (f *face) security(v *visit, err error, part func(*visit, person) (page.Layout, error)) error {
	if errors.Is(err, directory.ErrUserNotFound) {
		return err
	}
	p, failed := f.someone(v)
	if failed != nil {
		return err
	}
	return v.again(err, func(m page.Message) (page.Layout, error) {
		p.Message = m
		return part(v, p)
	})
}

// lives are for how long a recovery link may be good.
var lives = []struct {
	For  time.Duration
	Text string
}{{mfa.RecoveryFor, "one hour"}, {24 * time.Hour, "one day"}, {mfa.MaxRecovery, "seven days"}}

func (f *face) askRecovery(v *visit) error {
	p, err := f.changeable(v)
	if err != nil {
		return err
	}
	return v.show(recoveryLayout(p, v))
}

func recoveryLayout(p person, v *visit) page.Layout {
	var options []page.Option
	for _, l := range lives {
		options = append(options, page.Option{Value: strconv.Itoa(int(l.For / time.Second)), Text: l.Text})
	}
	return page.Layout{Title: "Recovery link for " + p.Username, Active: usersPath,
		Content: recoveryForm(p, options, v.Field("expires_in"), v.Field("keep_factors") != "" || v.Request.Method == http.MethodGet)}
}

func (f *face) issueRecovery(v *visit) error {
	p := person{User: store.User{ID: v.Request.PathValue("id")}}
	seconds, _ := strconv.Atoi(v.Field("expires_in")) // 0 is the usual time
	err := f.showRecovery(v, p, v.Field("keep_factors") != "", time.Duration(min(seconds, int(2*mfa.MaxRecovery/time.Second)))*time.Second)
	if err == nil || errors.Is(err, directory.ErrUserNotFound) {
		return err
	}
	p, failed := f.someone(v)
	if failed != nil {
		return err
	}
	return v.retry(err, func(m page.Message) page.Layout {
		p.Message = m
		return recoveryLayout(p, v)
	})
}

// showRecovery makes a recovery link and shows it, this one time.
func (f *face) showRecovery(v *visit, p person, keep bool, life time.Duration) error {
	ctx := v.Request.Context()
	r, err := f.Factors.IssueRecovery(ctx, v.Actor(), p.ID, keep, life)
	if err != nil {
		return err
	}
	if p.Username == "" {
		if u, err := f.Directory.User(ctx, v.Actor(), p.ID); err == nil {
			p.User = u
		}
	}
	// A fragment is sent to no server and stands in no log.
	link := f.kit.PublicURL + "/signin/recover#token=" + r.Token
	return v.show(page.Layout{Title: "Recovery link for " + p.Username, Active: usersPath, Content: recoveryContent(p, r, link, f.kit.PublicURL != "")})
}

const (
	// sessionsAtOnce is how many sessions a page has.
	sessionsAtOnce = 50
	// emptyPages is how many pages without a live session are passed over at once.
	emptyPages = 10
)

type sessionsOf struct {
	Items []session.Session
	Pages page.Pages
	This  string // the session of this visit
}

// guest returns the user whom the path names, as a visitor sees them who may see sessions.
func (f *face) guest(v *visit, permission string) (person, error) {
	u, err := f.Directory.AuthorizeOn(v.Request.Context(), v.Actor(), permission, v.Request.PathValue("id"))
	if err != nil && v.Request.PathValue("id") == v.User.ID {
		u, err = v.User, nil // one's own
	}
	if err != nil {
		return person{}, err
	}
	return f.meet(v, u)
}

func (f *face) userSessions(v *visit) error {
	p, err := f.guest(v, directory.SessionsRead)
	if err != nil {
		return err
	}
	l, err := f.sessionsOf(v, p)
	if err != nil {
		return err
	}
	return v.show(l)
}

func (f *face) sessionsOf(v *visit, p person) (page.Layout, error) {
	l := sessionsOf{This: v.By.Token.SessionID}
	after, path := "", userPath(p.ID)+"/sessions"
	if v.Request.Method == http.MethodGet {
		after = v.Field("after")
	}
	if after != "" {
		l.Pages.First = path
	}
	for range emptyPages {
		live, next, err := f.Login.ListSessions(v.Request.Context(), v.By.Token, p.ID, after, sessionsAtOnce, v.Client)
		if err != nil {
			return page.Layout{}, err
		}
		l.Items, l.Pages.Next, after = live, "", next
		if next == "" {
			break
		}
		l.Pages.Next = linkTo(path, "after", next)
		if len(live) > 0 {
			break
		}
	}
	return p.layout("sessions", userSessionsContent(p, l)), nil
}

func (f *face) askEndSession(v *visit) error {
	p, err := f.guest(v, directory.SessionsRead)
	if err != nil {
		return err
	}
	one, err := f.sessionOf(v, p.User, v.Field("id"))
	if err != nil {
		return err
	}
	text := "Ending the session of " + p.Username + " that began at " + one.CreatedAt.UTC().Format("2006-01-02 15:04 UTC") +
		" from " + cmp.Or(one.Address, "an unknown address") + " signs them out there and revokes its tokens."
	if one.ID == v.By.Token.SessionID {
		text += " It is the session that you are using now."
	}
	return v.show(p.question("End a session", page.Confirmation{
		Action: userPath(p.ID) + "/sessions/end", Fields: map[string]string{"id": one.ID}, Cancel: userPath(p.ID) + "/sessions",
		Text: text, Button: "End the session", Danger: true,
	}))
}

func (f *face) endSession(v *visit) error {
	user, id := v.Request.PathValue("id"), v.Field("id")
	if err := f.endSessionOf(v, user, id); err != nil {
		return f.security(v, err, f.sessionsOf)
	}
	if id == v.By.Token.SessionID {
		return v.signedOut("Your session has ended.")
	}
	v.Flash(page.Success, "The session has ended, and its tokens are revoked.")
	return v.Redirect(userPath(user) + "/sessions")
}

func (f *face) askEndSessions(v *visit) error {
	p, err := f.guest(v, directory.SessionsWrite)
	if err != nil {
		return err
	}
	return v.show(p.question("End all sessions", page.Confirmation{
		Action: userPath(p.ID) + "/sessions/end-all", Cancel: userPath(p.ID) + "/sessions", Danger: true, Button: "End all sessions",
		Text: "This signs " + p.Username + " out everywhere and revokes all their tokens. They can sign in again.",
	}))
}

func (f *face) endSessions(v *visit) error {
	user := v.Request.PathValue("id")
	if err := f.Login.EndAllSessions(v.Request.Context(), v.By.Token, user, v.Client); err != nil {
		return f.security(v, err, f.sessionsOf)
	}
	v.Flash(page.Success, "All sessions of the user have ended, and all their tokens are revoked.")
	return v.Redirect(userPath(user) + "/sessions")
}

// recent is how many events of a user are shown.
const recent = 30

func (f *face) userEvents(v *visit) error {
	ctx := v.Request.Context()
	p, err := f.someone(v)
	if err != nil {
		return err
	}
	u := p.User
	var events []store.AuditEvent
	for _, q := range []audit.Query{{Actor: u.ID, Limit: recent}, {Target: u.ID, Limit: recent}} {
		l, err := f.Directory.AuditEvents(ctx, v.Actor(), q)
		if err != nil {
			return err
		}
		events = append(events, l.Items...)
	}
	slices.SortFunc(events, func(a, b store.AuditEvent) int { return cmp.Compare(b.ID, a.ID) })
	events = slices.CompactFunc(events, func(a, b store.AuditEvent) bool { return a.ID == b.ID })
	events = events[:min(len(events), recent)]
	names := map[string]string{"": "", u.ID: "the user"}
	for _, e := range events {
		if _, known := names[e.Actor]; known {
			continue
		}
		other, err := f.Directory.User(ctx, v.Actor(), e.Actor)
		switch {
		case errors.Is(err, directory.ErrUserNotFound):
			other.Username = "a deleted user"
		case problem.From(err).Kind == problem.Denied:
			other.Username = "another user"
		case err != nil:
			return err
		}
		names[e.Actor] = other.Username
	}
	return v.show(p.layout("events", userEventsContent(p, events, names)))
}
