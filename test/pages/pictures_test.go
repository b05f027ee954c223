package pages

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/browser"
	"github.com/watchword-auth/watchword/test/kit"
)

// The people of an office that is a world of its own: first and last name, and the first letters
// of their groups.
var staff = strings.Fields(`
	Amara.Okafor:EO Benjamin.Hart:E Chiara.Rossi:ES Daniel.Novak:S Elena.Petrova:F Farid.Haddad:E Grace.Hopper:EO
	Hannah.Weiss:S Ibrahim.Diallo:E Julia.Lindqvist:F Kenji.Tanaka:E Laura.Schmidt:SO Marco.Bianchi:C Nadia.Karim:E
	Oliver.Bennett:E Priya.Nair:ES Quentin.Moreau:F Rosa.Delgado:S Samuel.Porter:C Tara.Walsh:E Umar.Farooq:E
	Valeria.Costa:F William.Chen:EO Xenia.Popescu:S Yusuf.Demir:E Zofia.Nowak:E Adrian.Keller:C Bianca.Silva:S
	Carlos.Mendes:E Diana.Frost:F Emil.Larsen:E Fatima.Zahra:E George.Mbeki:S Helena.Vogt:E Ivan.Markovic:C
	Jasmin.Ayad:E Kai.Sorensen:E Leila.Rahimi:S Mateo.Vargas:E Nora.Lindgren:O`)

var agents = []string{
	"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 Edg/138.0.0.0",
	"backup-tool/2.1",
}

// An office is a world with its people.
type office struct {
	*World
	t      *testing.T
	people []User
	groups map[byte]string // ids, by letter
	asked  int
}

// login signs somebody in from an address, at the replicas in turn, without the load balancer, and
// each time with another device.
func (o *office) login(u User, password, address string) kit.Answer {
	o.t.Helper()
	o.asked++
	client := o.World.client(o.t)
	client.URL = "http://" + o.Replicas[o.asked%2].addr
	r := client.Request("POST", "/api/login", "", httpapi.LoginRequest{Username: u.Name, Password: password})
	r.Header.Set("User-Agent", agents[o.asked%len(agents)])
	r.Header.Set("X-Forwarded-For", address)
	return client.Send(r)
}

// hire makes the people, their groups and what these give.
func (o *office) hire() {
	o.t.Helper()
	o.groups = make(map[byte]string)
	for _, g := range []struct {
		name   string
		claims [][3]string
	}{
		{"Contractors", [][3]string{{"Read the wiki", "wiki", "read"}}},
		{"Engineering", [][3]string{{"Push code", "repo", "write"}, {"Read logs", "log", "read"}, {"Deploy to staging", "deploy", "staging"}}},
		{"Finance", [][3]string{{"Approve payments", "payments", "approve"}, {"Read reports", "reports", "read"}}},
		{"Operations", [][3]string{{"Deploy to production", "deploy", "production"}, {"See users", "admin", "users:read"}, {"Lift limits", "admin", "limits:write"}}},
		{"Support", [][3]string{{"Answer tickets", "tickets", "write"}, {"Look up customers", "customers", "read"}}},
	} {
		var ids []string
		for _, c := range g.claims {
			ids = append(ids, o.Claim(o.t, c[0], c[1], c[2]).ID)
		}
		o.groups[g.name[0]] = o.Group(o.t, g.name, ids...).ID
	}
	for i, one := range staff {
		name, letters, _ := strings.Cut(one, ":")
		first, last, _ := strings.Cut(name, ".")
		u := User{Name: strings.ToLower(name), Password: kit.Password}
		body := httpapi.NewUser{Username: u.Name, Password: u.Password, FirstName: first, LastName: last, Email: u.Name + "@example.com", EmailVerified: i%3 != 1, Disabled: i%17 == 12}
		for _, l := range []byte(letters) {
			body.Groups = append(body.Groups, o.groups[l])
		}
		u.ID = kit.Decode[httpapi.User](o.t, o.API(o.t, "POST", "/api/users", body, http.StatusCreated)).ID
		if !body.Disabled {
			o.people = append(o.people, u)
		}
	}
}

// person is the one with a username.
func (o *office) person(name string) User {
	o.t.Helper()
	for _, u := range o.people {
		if u.Name == name {
			return u
		}
	}
	o.t.Fatalf("nobody is %s", name)
	return User{}
}

// works has the people sign in and use their tokens, for some time.
func (o *office) works(until time.Time) {
	o.t.Helper()
	client := o.World.client(o.t)
	for i := 0; i < len(o.people) || time.Now().Before(until); i++ {
		u := o.people[i*7%len(o.people)]
		a := o.login(u, u.Password, fmt.Sprintf("192.0.2.%d", 10+i*7%len(o.people)))
		if a.Status == http.StatusOK {
			g := kit.Decode[httpapi.Grant](o.t, a)
			for range 3 + i%9 {
				client.Do("GET", "/api/verify", g.AccessToken, nil)
			}
			switch {
			case i >= len(o.people) && i%3 == 0:
				client.Do("POST", "/api/logout", g.AccessToken, nil)
			case i%5 < 2:
				client.Renew(g.RefreshToken)
			}
		}
		if i%11 == 3 {
			o.login(u, "a slip of the finger", fmt.Sprintf("192.0.2.%d", 10+i*7%len(o.people)))
		}
		if time.Now().Before(until) { // the traffic of an office, which goes up and down
			wave := math.Sin(float64(time.Until(until)) / float64(17*time.Second))
			time.Sleep(time.Duration(250+190*wave) * time.Millisecond)
		}
	}
}

// empty has axe-core judge a page without anything in it, which fits a phone.
func (p *person) empty(path, says string) {
	p.t.Helper()
	p.open(path)
	p.at(path, http.StatusOK)
	p.Sees(says)
	browser.Axe(p.t, p.Browser)
	p.View(browser.Phone)
	p.Fits()
	p.View(browser.Desktop)
}

// Every page of administration can be used by everybody and fits a phone: without anything in it,
// and in an office. These are also the pictures that docs shows; the traffic in them then takes
// some minutes.
func TestPictures(t *testing.T) {
	w := start(t, func(cfg *config.Config) {
		cfg.Admin.Username, cfg.Admin.Password = "", ""
		cfg.Tokens.Keys = config.Default().Tokens.Keys
		cfg.Limits.Login.PerAddress, cfg.Limits.MFA = config.Rate{Count: 60, Per: time.Minute}, config.Default().Limits.MFA
		cfg.Limits.Lockout, cfg.Limits.Spray = config.Default().Limits.Lockout, config.Spray{After: 20}
	})
	nobody := w.sits(t, User{})
	for _, path := range []string{"/admin", "/admin/users", "/signin?return=%2Fadmin", "/signin?return=%2Fadmin%2Fusers"} {
		nobody.open(path)
		nobody.at(path, http.StatusForbidden)
		nobody.Sees("ADMIN_GUI_USERNAME", "ADMIN_GUI_PASSWORD", "watchword user add")
	}
	nobody.looks("")
	nobody.open("/signin") // others can sign in
	nobody.at("/signin", http.StatusOK)
	for _, r := range w.Replicas {
		r.kill()
		r.config.Admin.Username, r.config.Admin.Password = AdminName, AdminPassword
		r.start(t)
	}
	w.awaitTurns(t, "auth-0", "auth-1")

	p := w.sits(t, User{Name: AdminName, Password: AdminPassword})
	p.open("/signin?return=%2Fadmin")
	p.types(p.Name, p.Password)
	p.at("/admin", http.StatusOK)
	p.Sees("First steps")
	total, all := p.Weight()
	if total > 100<<10 {
		t.Errorf("the first page of administration weighs %d bytes: %+v", total, all)
	}
	t.Logf("the first page of administration weighs %d bytes", total)
	for path, says := range map[string]string{
		"/admin": "First steps", "/admin/groups": "Administrators", "/admin/limits": "Nobody waits", "/admin/revocations": "Revocations",
		"/admin/users?q=nobody": "Nobody found", "/admin/groups/new": "Create group", "/admin/claims/new": "Create claim", "/admin/users/new": "Create user",
		"/admin/revocations/new": "A signing key", "/admin/audit?action=none": "No such event", "/admin/users/import": "What is in a file", "/admin/token": "Examine a token",
	} {
		p.empty(path, says)
	}

	o := &office{World: w, t: t}
	o.hire()
	until := time.Now()
	if os.Getenv(browser.PicturesTo) != "" {
		until = until.Add(4 * time.Minute)
	}
	o.works(until)
	grace, sam := o.person("grace.hopper"), o.person("samuel.porter")

	t.Run("limits", func(t *testing.T) {
		for i := range 8 {
			o.login(sam, "wrong", "203.0.113.50")
			if i < 6 {
				o.login(o.person("daniel.novak"), "wrong", "198.51.100.7")
			}
		}
		for i := range 22 {
			o.login(o.people[i], "password1", "198.51.100.23")
		}
		p.open("/admin/limits")
		p.Sees(sam.Name, "203.0.113.50", "198.51.100.23", "waits")
		p.looks("limits")
		if a := o.login(sam, sam.Password, "203.0.113.50"); a.Status != http.StatusUnauthorized {
			t.Errorf("whoever waits signs in: %d", a.Status)
		}
		p.Follow("link", sam.Name)
		p.Sees("some attempts wait")
		p.looks("")
		p.asks("Lift the limits of "+sam.Name, "Lift", sam.Name)
		p.Sees("The limits of the account are lifted.")
		p.SeesNot(sam.Name)
		if a := o.login(sam, sam.Password, "203.0.113.50"); a.Status != http.StatusOK {
			t.Errorf("they do not sign in: %d %s", a.Status, a.Body)
		}
		p.open(query("/admin/limits/address", "address", "198.51.100.23"))
		p.looks("")
	})
	client := w.client(t)
	var token string
	for i, name := range []string{"chiara.rossi", "kenji.tanaka", "rosa.delgado", "priya.nair", "yusuf.demir"} {
		u := o.person(name)
		g := kit.Decode[httpapi.Grant](t, o.login(u, u.Password, fmt.Sprintf("192.0.2.%d", 90+i)))
		switch i {
		case 0:
			token = g.AccessToken
			client.Revoke(w.Admin(t), map[string]any{"token": token})
		case 1:
			client.Do("POST", "/api/logout", g.AccessToken, nil)
		case 2:
			w.endSessions(t, u)
		case 3:
			w.API(t, "PATCH", "/api/users/"+u.ID, map[string]any{"disabled": true}, http.StatusOK)
		case 4:
			client.Revoke(w.Admin(t), map[string]any{"user": u.ID})
		}
	}
	w.app(t, grace)
	w.awaitFigures(p, len(o.people))
	user, group := "/admin/users/"+grace.ID, "/admin/groups/"+o.groups['O']
	claim := kit.Decode[struct{ Claims []httpapi.Claim }](t, w.API(t, "GET", "/api/claims", nil, http.StatusOK)).Claims[0].ID
	for _, page := range []struct{ path, picture string }{
		{"/admin?span=5m", "overview"}, {"/admin/cluster", "cluster"}, {"/admin/checks", "checks"}, {"/admin/users", "users"}, {"/admin/users/" + o.person("elena.petrova").ID + "/token", "user"}, {user + "/token", ""}, {user, ""}, {user + "/factors", ""},
		{user + "/sessions", ""}, {user + "/events", ""}, {user + "/edit", ""}, {user + "/delete", ""}, {user + "/recovery", ""}, {user + "/password", ""},
		{"/admin/groups", ""}, {group, ""}, {group + "/delete", ""}, {"/admin/claims", ""}, {"/admin/claims/" + claim, ""}, {"/admin/sessions", "sessions"}, {query("/admin/sessions", "user", grace.Name), ""},
		{"/admin/revocations", "revocations"}, {query("/admin/revocations/user", "user", grace.Name), ""}, {"/admin/audit", "audit"},
	} {
		p.open(page.path)
		p.at(page.path, http.StatusOK)
		p.looks(page.picture)
	}
	p.open("/admin/token")
	p.Fill("Token", token)
	p.Follow("button", "Examine")
	p.Sees("This service refuses it")
	p.looks("token")
	p.imports("username,email,first_name,last_name,groups\n" +
		"aisha.bello,aisha.bello@example.com,Aisha,Bello,Engineering\nbruno.keller,bruno.keller@example.com,Bruno,Keller,Engineering;Support\n" +
		"grace.hopper,grace.hopper@example.com,Grace,Hopper,Engineering\nclara.winter,amara.okafor@example.com,Clara,Winter,Finance\n" +
		"derek.osei,derek.osei@example.com,Derek,Osei,Sales\neva.lang,eva.lang@example.com,Eva,Lang,Support\nfinn.maher,finn.maher@example.com,Finn,Maher,Engineering\n")
	p.looks("import")
	if os.Getenv(browser.PicturesTo) != "" { // tests of their own look at these
		q := w.sits(t, o.person("amara.okafor"))
		q.AddAuthenticator(browser.Options{}).SetPresent(false)
		q.open("/signin")
		q.Pictures("signin")
		q.in()
		q.Pictures("account")
	}
}

// awaitFigures waits until the overview knows of so many sign-ins.
func (w *World) awaitFigures(p *person, least int) {
	p.t.Helper()
	p.open("/admin?span=15m")
	kit.Eventually(p.t, func() error {
		p.open("/admin?span=15m")
		if got := browser.Eval[int](p.Browser, `Number([...document.querySelectorAll('.stat')].find(e => e.textContent.includes('Sign-ins')).textContent.replaceAll(',', '').match(/[0-9]+/)[0])`); got < least {
			return fmt.Errorf("the overview knows of %d sign-ins", got)
		}
		return nil
	})
}
