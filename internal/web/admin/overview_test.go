package admin

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/activity"
	"github.com/watchword-auth/watchword/internal/cluster"
	"github.com/watchword-auth/watchword/internal/web/page"
)

const hostile = `<script>alert(1)</script>"'><img src=x onerror=alert(1)>`

func TestOverviewOfANewInstallation(t *testing.T) {
	s := newScene(t)
	s.replica("auth-0")
	s.pass(20 * time.Second)
	s.get("/admin").has(t, 200, "Nothing needs attention.", "First steps", "/admin/users/new", "curl http://127.0.0.1", "<title>Overview", "data-live", "htmx.min", "live")
	// Whoever may not create users is not sent to the page.
	s.cookie = s.signIn("auditor", "admin=audit:read")
	a := s.get("/admin")
	a.has(t, 200, "Somebody with the right users:write can do that.")
	a.lacks(t, "/admin/users/new", "/admin/cluster")
}

// The figures are those of all replicas, or of one.
func TestFiguresOfTheOverview(t *testing.T) {
	s := newScene(t)
	one, two := s.replica("auth-0"), s.replica("auth-1")
	one.signs(12, 3)
	one.answers(20, 0, 3*time.Millisecond)
	two.signs(30, 0)
	two.uses.WithLabelValues("verify", "ok").Add(700)
	two.revokes(5, 30*time.Millisecond)
	s.pass(30 * time.Second)

	all := s.get("/admin?span=5m")
	all.has(t, 200, `<p class="figure">42</p>`, "3 refused (6.67 %)", `<p class="figure">700</p>`, "the last 5 minutes of 2 replicas", "in each 10 seconds", "5 sessions ended", `aria-current="page">5 minutes`)
	all.lacks(t, "First steps")
	s.get("/admin?span=5m&replica=auth-0").has(t, 200, `<p class="figure">12</p>`, "the last 5 minutes of auth-0", "nothing was revoked")
	// One that is not known has no figures; its name is only text.
	unknown := s.get("/admin?replica=" + strings.ReplaceAll(hostile, " ", "+"))
	unknown.has(t, 200, `<p class="figure">–</p>`)
	unknown.lacks(t, "<script>alert", "<img src=x")
	// What is older than the span is no longer in the figures, and yet it is known.
	s.pass(20*time.Minute, "auth-1")
	old := s.get("/admin?span=5m")
	old.has(t, 200, `<p class="figure">0</p>`, "last seen", ">auth-1<")
	old.lacks(t, "First steps")
	if a := s.get("/admin?span=7m"); a.status != 422 && a.status != 400 {
		t.Errorf("a span that is none: %d", a.status)
	}
}

// What is renewed is a part of the page, and only that.
func TestFragmentOfTheOverview(t *testing.T) {
	s := newScene(t)
	s.replica("auth-0").signs(9, 0)
	s.pass(20 * time.Second)
	for path, text := range map[string]string{"/admin?span=15m": `<p class="figure">9</p>`, "/admin/cluster": "What happens next", "/admin/checks": "The database"} {
		a := s.get(path, "HX-Request", "true")
		a.has(t, 200, text, `id="notices"`)
		a.lacks(t, "<html", "hx-get", "<nav class=\"side\"", "style=", "onclick")
	}
	// Without a session the page of htmx loads itself again, which leads to the sign-in.
	s.cookie = ""
	if a := s.get("/admin", "HX-Request", "true"); a.status != 401 || a.header.Get("HX-Refresh") != "true" {
		t.Errorf("without a session: %d %v", a.status, a.header)
	}
}

func TestRightsOfTheOverview(t *testing.T) {
	s := newScene(t)
	s.cookie = s.signIn("nobody", "log=r")
	for _, path := range []string{"/admin", "/admin/cluster", "/admin/token", "/admin/checks"} {
		s.get(path).has(t, 403)
		s.get(path, "HX-Request", "true").has(t, 403)
	}
	s.cookie = s.signIn("reader", "admin=users:read")
	for _, path := range []string{"/admin", "/admin/token", "/admin/checks"} {
		s.get(path).has(t, 200)
	}
	s.get("/admin/cluster").has(t, 403)
	s.cookie = s.signIn("keeper", "admin=keys:read")
	s.get("/admin/cluster").has(t, 200)
}

// What is wrong stands first, in words.
func TestNotices(t *testing.T) {
	s := newScene(t)
	s.viewer.view = trio(time.Now())
	one, two := s.replica("auth-0"), s.replica("auth-1")
	s.replica("auth-9") // of which the registry knows nothing: it was stopped
	s.pass(20 * time.Second)
	s.get("/admin").has(t, 200, "Nothing needs attention.")
	one.signs(10, 40)
	one.answers(100, 4, 2*time.Second)
	one.lockouts.WithLabelValues().Add(7)
	one.limits.WithLabelValues().Add(50)
	two.revokes(10, 3*time.Second)
	s.pass(10 * time.Second)
	s.pass(40*time.Second, "auth-1", "auth-9")
	s.viewer.view.Replicas[2].Version = "1.2.2"
	a := s.get("/admin")
	a.has(t, 200, "3 problems need attention", "auth-1 has not written for", "4 requests of 100 failed", "Revocations take", "40 of 50 sign-ins were refused",
		"7 accounts were locked", "50 requests were refused as too many", "Answers take")
	a.lacks(t, "auth-9 has not written", "Nothing needs attention")
	if bad, look := strings.LastIndex(a.body, `"badge bad"`), strings.Index(a.body, `"badge caution"`); bad < 0 || look < bad {
		t.Errorf("problems do not stand first: %d, %d", bad, look)
	}
	// Whoever may not see the cluster is not told what only it says.
	s.cookie = s.signIn("auditor", "admin=audit:read")
	a = s.get("/admin")
	a.has(t, 200, "auth-1 has not written for", "auth-9 has not written for")
	a.lacks(t, "See the cluster")
	// Faults of the cluster are there, too.
	s.viewer.view.Replicas[2].Standing, s.viewer.view.Replicas[2].BeatAt = cluster.Silent, s.viewer.view.AsOf.Add(-time.Minute)
	s.cookie = s.signIn("keeper", "admin=keys:read")
	a = s.get("/admin")
	a.has(t, 200, "auth-2 has been silent for 60 s")
	if bad, look := strings.LastIndex(a.body, `"badge bad"`), strings.Index(a.body, `"badge caution"`); bad < 0 || look < bad {
		t.Errorf("problems do not stand first: %d, %d", bad, look)
	}
}

// A name of a replica can be anything, for whoever writes into the shared state.
func TestHostileNames(t *testing.T) {
	s := newScene(t)
	s.replica(`<b>"'&`).signs(4, 0)
	s.pass(20 * time.Second)
	view := trio(time.Now())
	view.Instance = hostile
	for i := range view.Replicas {
		r := &view.Replicas[i]
		r.Instance, r.URL, r.Version, r.Config = hostile+fmt.Sprint(i), "javascript:alert(1)//"+hostile, hostile, hostile+fmt.Sprint(i)
		for j := range r.Keys {
			r.Keys[j].ID, r.Keys[j].Instance, r.Keys[j].Algorithm = hostile+fmt.Sprint(i, j), r.Instance, hostile
		}
		r.Unseen = []string{hostile + "0 0"}
	}
	view.Peers = []cluster.PeerStatus{{URL: hostile, Instance: hostile, Problem: hostile}}
	s.viewer.view = view
	for _, path := range []string{"/admin", "/admin/cluster"} {
		a := s.get(path)
		a.has(t, 200)
		a.lacks(t, "<script>alert", "<img src=x", "<b>", `href="javascript:`, " style=")
		if on := regexp.MustCompile(`<[^>]*\son[a-z]+=`).FindString(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(a.body, "")); on != "" {
			t.Errorf("%s: a handler: %s", path, on)
		}
	}
	s.get("/admin").has(t, 200, "Some figures cannot be read", "&lt;script&gt;")
}

// The page costs one look at the shared state for the figures, whatever there is of users and sessions.
func TestCostOfTheOverview(t *testing.T) {
	s := newScene(t)
	s.later = -10 * time.Minute
	s.busy(5 * time.Minute)
	s.get("/admin") // the session is recognised, and remembered
	before := s.state.lists.Load()
	began := time.Now()
	a := s.get("/admin?span=48h")
	took := time.Since(began)
	a.has(t, 200)
	if n := s.state.lists.Load() - before; n != 1 {
		t.Errorf("%d lists were read", n)
	}
	for range 3 { // the machine of a test may be busy
		began = time.Now()
		s.get("/admin?span=48h")
		took = min(took, time.Since(began))
	}
	if took > time.Second { // a tenth of that is what the page may take
		t.Errorf("it took %v", took)
	}
	if len(a.body) > 400<<10 {
		t.Errorf("the page has %d bytes", len(a.body))
	}
	t.Logf("%v, %d bytes", took, len(a.body))
}

// The newest point is not drawn while it may still grow, nor is a time of which nothing is known.
func TestPointsOfAChart(t *testing.T) {
	o := overview{Span: time.Hour, Series: activity.Series{Points: []activity.Point{{SignIns: 3, Known: true}, {}, {SignIns: 0, Known: true}, {SignIns: 1, Known: true, Partial: true}}}}
	line := o.signIns().Lines[0]
	want := []page.Value{{Number: 3, Known: true}, {}, {Number: 0, Known: true}, {}}
	if !slices.Equal(line.Values, want) {
		t.Errorf("%v, want %v", line.Values, want)
	}
	if v := o.latency().Lines[0].Values[0]; v.Known {
		t.Error("there was no request, and yet it took some time")
	}
}

func TestLasting(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 20 * time.Microsecond: "under 1 ms", 1500 * time.Microsecond: "1.5 ms", 18 * time.Millisecond: "18 ms", 5 * time.Second: "5 s", 1340 * time.Millisecond: "1.3 s",
		47 * time.Second: "47 s", -3 * time.Minute: "3 minutes", 5 * time.Hour: "5 hours", 72 * time.Hour: "3 days",
	} {
		if got := lasting(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
