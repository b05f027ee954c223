package page

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limit"
	"github.com/watchword-auth/watchword/internal/login"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/revocation"
)

// Sessions recognises the holder of a session's cookie.
type Sessions interface {
	// Recognise returns login.ErrNoBrowser for a cookie of no live session. Any other error
	// means that this is not known. It notes that the session is in use.
	Recognise(ctx context.Context, cookie string) (*login.Browser, error)
	// Watch is Recognise for a page that keeps itself up to date, which is no use of a session.
	Watch(ctx context.Context, cookie string) (*login.Browser, error)
}

// Config is what a Kit needs.
type Config struct {
	Login Sessions
	// Limits counts the requests of signed-in users; nil: they are not counted.
	Limits *limit.Limiter
	// Budget bounds how many requests are served at once; nil: they are not bounded.
	Budget  *httpkit.Budget
	Proxies httpkit.Proxies
	Brand   Brand
	// PublicURL is the address at which browsers reach this service (server.public_url); may
	// be empty.
	PublicURL string
	Now       func() time.Time
	Logger    *slog.Logger
	Version   string
}

// Kit is what all pages share.
type Kit struct {
	Config
	assets         *assets
	mux            *http.ServeMux
	roots          []string // the paths under which there are pages
	english        []string // those of them whose pages are in English
	routes         []Route
	protection     *http.CrossOriginProtection
	noSession      func(*Visit) error
	reauthenticate func(*Visit, error) error
}

// New makes a Kit.
func New(c Config) (*Kit, error) {
	if err := c.Brand.Check(); err != nil {
		return nil, err
	}
	assets, err := newAssets(c.Brand)
	if err != nil {
		return nil, err
	}
	k := &Kit{Config: c, assets: assets, mux: http.NewServeMux(), protection: http.NewCrossOriginProtection()}
	k.mux.HandleFunc("/", k.unrouted)
	return k, nil
}

// Who may open a page.
type Who int

// Who may open a page.
const (
	Anybody  Who = iota // also who is not signed in
	SignedIn            // who has a live session
)

// Get adds a page. The pattern is a path of http.ServeMux without a method, or with GET.
func (k *Kit) Get(pattern string, who Who, f func(*Visit) error) {
	k.add(http.MethodGet, pattern, route{who: who}, f)
}

// Post adds what a form is sent to, of MaxForm bytes at most.
func (k *Kit) Post(pattern string, who Who, f func(*Visit) error) {
	k.add(http.MethodPost, pattern, route{who: who, body: formBody, most: MaxForm}, f)
}

// PostJSON adds what a script sends JSON to, which the handler reads by Visit.ReadJSON. Errors
// are answered in JSON: {"code", "message", "status"}.
func (k *Kit) PostJSON(pattern string, who Who, f func(*Visit) error) {
	k.add(http.MethodPost, pattern, route{who: who, body: jsonBody, most: MaxForm}, f)
}

// PostLarge adds what a form with files is sent to, whose body has so many bytes at most. The
// handler reads it by Visit.Parts.
func (k *Kit) PostLarge(pattern string, who Who, most int64, f func(*Visit) error) {
	k.add(http.MethodPost, pattern, route{who: who, body: filesBody, most: most}, f)
}

// OnNoSession sets what answers a request without a live session to a page that needs one.
func (k *Kit) OnNoSession(f func(*Visit) error) { k.noSession = f }

// OnReauthenticate sets what answers where the user has to authenticate again. The error is
// the problem that says so.
func (k *Kit) OnReauthenticate(f func(*Visit, error) error) { k.reauthenticate = f }

// InEnglish has all pages under a path, such as "/admin", in English for every visitor: their texts,
// and how numbers and times are written. A sign-in that is asked for in place of one of them is in
// the visitor's language.
func (k *Kit) InEnglish(root string) { k.english = append(k.english, root) }

// A Route is a page, or what a form or a script is sent to.
type Route struct {
	Method, Path string // as http.ServeMux has them
	Who          Who
	ContentType  string // of its body; empty: it has none
}

// Routes returns all that was added.
func (k *Kit) Routes() []Route { return slices.Clone(k.routes) }

// A route is what the kit knows of a page.
type route struct {
	who  Who
	body body
	most int64 // bytes of the body
}

func (k *Kit) add(method, pattern string, to route, f func(*Visit) error) {
	path := strings.TrimPrefix(pattern, method+" ")
	root := "/" + strings.SplitN(path[1:], "/", 2)[0]
	if root == "/.well-known" {
		root = path
	}
	if !slices.Contains(k.roots, root) {
		k.roots = append(k.roots, root)
	}
	handle := func(w http.ResponseWriter, r *http.Request) {
		v := k.visit(w, r)
		v.route = to
		v.fail(v.serve(f))
	}
	if k.Budget != nil {
		handle = k.Budget.Reporting(k.Proxies, handle)
	}
	k.mux.HandleFunc(method+" "+path, handle)
	k.routes = append(k.routes, Route{method, path, to.who, contentType[to.body]})
}

// Mount adds all pages and assets to a mux.
func (k *Kit) Mount(mux *http.ServeMux) {
	mux.HandleFunc("GET /assets/{name}", k.assets.serve)
	for _, root := range k.roots {
		mux.HandleFunc(root, k.serve)
		if !strings.HasPrefix(root, "/.well-known/") {
			mux.HandleFunc(root+"/", k.serve)
		}
	}
}

// policy is the Content-Security-Policy of pages.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; " +
	"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func (k *Kit) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	if err := k.protection.Check(r); err != nil {
		v := k.visit(w, r)
		v.fail(errCrossOrigin.Because(err))
		return
	}
	k.mux.ServeHTTP(w, r)
}

var (
	errCrossOrigin = problem.New(problem.Denied, "cross_origin", "the request came from a page of another site")
	errNoPage      = problem.New(problem.NotFound, "no_such_page", "there is no such page")
	errNoMethod    = problem.New(problem.WrongMethod, "method_not_allowed", "this page cannot be used in that way")
)

// unrouted answers what no page takes.
func (k *Kit) unrouted(w http.ResponseWriter, r *http.Request) {
	v := k.visit(w, r)
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		if _, pattern := k.mux.Handler(&http.Request{Method: method, URL: r.URL, Host: r.Host}); pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		v.fail(errNoPage)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	v.fail(errNoMethod)
}

// serve reads what was sent, counts the request, recognises the visitor, and calls f.
func (v *Visit) serve(f func(*Visit) error) error {
	// Before a place of the budget is taken: a client may send slowly.
	if err := v.readBody(); err != nil {
		return err
	}
	user, err := v.recognise()
	if err != nil {
		return err
	}
	if v.route.who == SignedIn && v.By == nil {
		return login.ErrNoBrowser
	}
	leave, err := v.enter(user)
	if err != nil {
		return err
	}
	defer leave()
	return f(v)
}

// recognise finds who is signed in, and returns the user's id; empty: nobody. The request is
// counted by address before, and for the user when the session is known to live, as those with
// an access token are.
func (v *Visit) recognise() (user string, err error) {
	cookie := v.Cookie(SessionCookie)
	if cookie == "" {
		return "", nil
	}
	ctx := v.Request.Context()
	if err := v.count("", v.Client.Address); err != nil {
		return "", err
	}
	// The cookie's user is not believed yet. Their places are not for somebody who only
	// knows their id.
	leave, err := v.enter("")
	if err != nil {
		return "", err
	}
	recognise := v.kit.Login.Recognise
	if v.IsHTMX() && v.route.body == noBody {
		recognise = v.kit.Login.Watch
	}
	by, err := recognise(ctx, cookie)
	leave()
	if errors.Is(err, login.ErrNoBrowser) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	v.By = by
	return by.Token.Subject, v.count(limit.UserAccount(by.Token.Subject), "")
}

// count counts the request in its class.
func (v *Visit) count(account, address string) error {
	if v.kit.Limits == nil {
		return nil
	}
	class := limit.API
	if v.route.body != noBody && strings.HasPrefix(v.Request.URL.Path, "/admin") {
		class = limit.Admin
	}
	return v.kit.Limits.Count(v.Request.Context(), class, address, account)
}

// CountVisitor counts the request of somebody who is not signed in, by address, as those with a
// session are. It is for pages that read the storage for everybody.
func (v *Visit) CountVisitor() error {
	if v.By != nil || v.Cookie(SessionCookie) != "" { // then it was counted
		return nil
	}
	return v.count("", v.Client.Address)
}

// enter waits until the request may be served.
func (v *Visit) enter(user string) (leave func(), err error) {
	if v.kit.Budget == nil {
		return func() {}, nil
	}
	return v.kit.Budget.Enter(v.Request, user, v.Client.Address, v.kit.Proxies)
}

// fail answers with an error, if there is one.
func (v *Visit) fail(err error) {
	if err == nil {
		return
	}
	switch p := problem.From(err); {
	case v.route.body == jsonBody:
	case v.IsHTMX() && v.route.body == noBody && p.Kind == problem.Unauthenticated:
		// The page that htmx has loads itself again, which leads to the sign-in.
		v.Writer.Header().Set("HX-Refresh", "true")
	case (errors.Is(err, login.ErrNoBrowser) || errors.Is(err, revocation.ErrRevoked)) && v.kit.noSession != nil:
		v.lang = v.preferred()
		err = v.kit.noSession(v)
	case p.Code == "reauthentication_required" && v.kit.reauthenticate != nil:
		v.lang = v.preferred()
		err = v.kit.reauthenticate(v, err)
	}
	if err != nil {
		v.errorPage(err)
	}
}

func (v *Visit) errorPage(err error) {
	m := v.Problem(err)
	httpkit.NoteCause(v.Writer, err)
	var wrong error
	if v.route.body == jsonBody {
		wrong = v.JSON(m.Status, map[string]any{"code": m.Code, "message": m.Text, "status": m.Status})
	} else {
		wrong = v.Show(m.Status, Layout{Title: v.T("error.title"), Narrow: len(v.nav) == 0, Content: errorContent(m, Layout{Nav: v.nav}.start())})
	}
	if wrong != nil {
		v.kit.Logger.ErrorContext(v.Request.Context(), "an error page could not be shown", "err", wrong)
	}
}
