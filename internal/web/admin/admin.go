package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/watchword-auth/watchword/internal/activity"
	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/store"
	"github.com/watchword-auth/watchword/internal/web/page"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// Config is what the pages need.
type Config struct {
	Login     *login.Service
	Factors   *mfa.Service
	Directory *directory.Service
	Limits    limit.Administration
	Cluster   cluster.Admin
	Activity  *activity.Service
	// Background runs what outlives a request, until it ends or its context does, with which
	// this replica ends.
	Background func(func(context.Context))
	// Checks asks the backends how they are, now.
	Checks func(context.Context) []Check
	// Doctor looks for what is wrong with the deployment.
	Doctor Doctor
	// Ready returns why this replica takes no traffic; nil: it does.
	Ready func() error
	// Bound is how soon a revocation counts everywhere.
	Bound Bound
	// Instance is the name of this replica.
	Instance string
	Version  string
	Now      func() time.Time
}

// A Check is what one backend answered.
type Check struct {
	Name    string
	OK      bool
	Latency time.Duration
	Reason  string // why it failed
}

// A Doctor looks for what is wrong with the deployment, for those who may see it. The errors are for
// the client.
type Doctor interface {
	// Own returns what the replica found last by itself; nil: it has not looked.
	Own(ctx context.Context, by *accesstoken.Token, address string) (*Examination, error)
	// Examine looks at everything, which takes some seconds.
	Examine(ctx context.Context, by *accesstoken.Token, address string) (*Examination, error)
}

// An Examination is what a Doctor found.
type Examination struct {
	At     time.Time
	Whole  bool // the other replicas were asked, too
	Checks []Examined
}

// An Examined is what came of one check.
type Examined struct {
	ID       string
	Title    string // what holds when nothing is found
	Severity string // of what it finds: "error", "warning", "advice"
	Status   string // "ok", "failed", "unknown", "skipped"
	Reason   string // why it is unknown or skipped
	Findings []Finding
}

// A Finding is what a check found.
type Finding struct {
	Subject string // what it is about; empty: the whole deployment
	Seen    string
	Mend    string
}

// A Bound says how soon every replica refuses what was revoked.
type Bound struct {
	Poll time.Duration // how often a replica reads the revocation log, at the latest
	Most time.Duration // after so long without the log, a replica accepts no token
	// Allow: it does accept them then, by signature and expiry.
	Allow bool
}

// A face is all pages of administration.
type face struct {
	Config
	kit *page.Kit
}

// Mount adds the pages.
func Mount(k *page.Kit, c Config) {
	f := &face{c, k}
	k.InEnglish("/admin")
	f.mountOverview()
	f.mountCluster()
	f.mountTools()
	f.mountUsers()
	f.mountGroups()
	f.mountClaims()
	f.mountTransfer()
	f.mountSessions()
	f.mountRevocations()
	f.mountLimits()
	f.mountAudit()
}

// A visit is one of an administrator.
type visit struct {
	*page.Visit
	User   store.User
	Rights directory.Rights
}

// get adds a page for administrators.
func (f *face) get(path string, h func(*visit) error) {
	f.kit.Get(path, page.SignedIn, f.administrator(h))
}

// post adds what a form of an administrator is sent to.
func (f *face) post(path string, h func(*visit) error) {
	f.kit.Post(path, page.SignedIn, f.administrator(h))
}

// administrator lets those in who hold a right of administration.
func (f *face) administrator(h func(*visit) error) func(*page.Visit) error {
	return func(v *page.Visit) error {
		user, rights, err := f.Directory.Administration(v.Request.Context(), v.Actor())
		if err != nil {
			return err
		}
		mine := &visit{v, user, rights}
		v.Frame(mine.nav(), user.Username)
		return h(mine)
	}
}

// show answers with a whole page.
func (v *visit) show(l page.Layout) error { return v.Show(http.StatusOK, l) }

// can reports whether the visitor holds a permission.
func (v *visit) can(permission string) bool { return v.Rights.Can(permission) }

// nav leads to the pages that the visitor may see.
func (v *visit) nav() []page.NavItem {
	var items []page.NavItem
	for _, one := range []struct{ href, text, permission string }{
		{"/admin", "Overview", ""},
		{"/admin/cluster", "Cluster", directory.KeysRead},
		{"/admin/users", "Users", directory.UsersRead},
		{"/admin/groups", "Groups", directory.GroupsRead},
		{"/admin/claims", "Claims", directory.ClaimsRead},
		{"/admin/sessions", "Sessions", directory.SessionsRead},
		{"/admin/revocations", "Revocations", directory.Revoke},
		{"/admin/limits", "Limits", directory.LimitsRead},
		{"/admin/audit", "Audit", directory.AuditRead},
		{"/admin/token", "Token", ""},
		{"/admin/checks", "Checks", ""},
	} {
		if one.permission == "" || v.can(one.permission) || one.href == revocationsPath && (v.can(directory.SessionsRead) || v.can(directory.KeysWrite)) {
			items = append(items, page.NavItem{Href: one.href, Text: one.text})
		}
	}
	return items
}
