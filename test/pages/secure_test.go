package pages

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/browser"
	"github.com/watchword-auth/watchword/test/kit"
)

// secureWorld is a world behind TLS, at https://auth.test:PORT, with low limits, and where a
// confirmation is fresh for two seconds.
func secureWorld(t *testing.T) *World {
	t.Helper()
	certFile, keyFile := testenv.SelfSigned(t, "auth.test")
	certificate, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	origin := "https://auth.test:" + port
	w := start(t, func(cfg *config.Config) {
		cfg.Server.PublicURL = origin
		cfg.MFA.Passkeys.RPID, cfg.MFA.Passkeys.Origins = "auth.test", []string{origin}
		cfg.Limits.Login.PerAccount = config.Rate{Count: 6, Per: 5 * time.Minute}
	})
	w.Origin = origin
	for _, r := range w.Replicas {
		// Less than an operator may set: a test does not wait for a minute.
		r.kill()
		r.config.Admin.FreshFor = 2 * time.Second
		r.start(t)
	}
	w.awaitTurns(t, "auth-0", "auth-1")
	to, err := url.Parse(w.balancer.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := &http.Server{Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.SetXForwarded()
		r.Out.Host = r.In.Host
	}}}
	go front.Serve(listener)
	t.Cleanup(func() { front.Close() })
	return w
}

func TestBehindTLS(t *testing.T) {
	w := secureWorld(t)
	u := w.User(t, "secure")
	p := w.sits(t, u)
	p.in()

	t.Run("cookies", func(t *testing.T) {
		for _, name := range p.cookieNames() {
			c := p.Cookie(name)
			if !strings.HasPrefix(name, "__Host-watchword") || !c.Secure || !c.HTTPOnly || c.SameSite != network.CookieSameSiteLax || c.Path != "/" || strings.HasPrefix(c.Domain, ".") || !c.Session {
				t.Errorf("the cookie %+v", c)
			}
		}
		if p.Cookie("__Host-watchword") == nil {
			t.Errorf("the cookies are %v", p.cookieNames())
		}
		// Over http no browser keeps them, and the page says so.
		plain := w.sits(t, u)
		plain.Tolerate("Cross-Origin-Opener-Policy header has been ignored") // as over http
		_, port, _ := net.SplitHostPort(w.balancer.Addr)
		plain.Open("http://auth.test:" + port + "/signin")
		plain.types(u.Name, u.Password)
		plain.Sees("open it with https:// instead")
	})

	// A confirmation that is too old is asked for again, and what was typed is kept.
	t.Run("again", func(t *testing.T) {
		device := p.AddAuthenticator(browser.Options{})
		before := p.Cookie("__Host-watchword").Value
		p.stale("/account/factors/passkeys")
		p.Sees("What you are about to do needs a fresh confirmation.", u.Name)
		p.Fill("Password", "not the password")
		p.Follow("button", "Continue")
		p.at("/signin/again", http.StatusUnauthorized)
		p.Fill("Password", u.Password)
		p.Follow("button", "Continue")
		p.at("/account/factors/passkeys", 200)
		if p.Cookie("__Host-watchword").Value == before {
			t.Error("the cookie is the same")
		}
		p.Fill("Name", "Key")
		p.Follow("button", "Make a passkey")
		p.at("/account/factors", 200)
		p.Follow("link", "Rename")
		p.Fill("Name", "Another name")
		p.awaitStale("/account/factors/passkeys")
		p.Follow("button", "Rename")
		if p.Status() != http.StatusUnauthorized {
			t.Fatal(p.Describe())
		}
		p.Sees("Confirm that it is you")
		p.Follow("button", "Use your passkey")
		p.Sees("Continue what you were doing?")
		p.Follow("button", "Continue")
		p.at("/account/factors", 200)
		p.Sees("Another name")
		device.Remove()
	})

	t.Run("limit", func(t *testing.T) {
		w.admin = "" // the administrator signed in too long ago, too
		u := w.User(t, "limited")
		p := w.sits(t, u)
		p.open("/signin")
		for range 6 {
			p.types(u.Name, "wrong")
			p.at("/signin", http.StatusUnauthorized)
		}
		p.types(u.Name, u.Password)
		p.at("/signin", http.StatusTooManyRequests)
		p.Sees("There were too many attempts from your address or for this account. Try again in")
		if got := p.Value("Username"); got != u.Name || p.Header("Retry-After") == "" {
			t.Errorf("the username is %q, Retry-After %q", got, p.Header("Retry-After"))
		}
		browser.Axe(t, p.Browser)
		p.Pictures("signin-limit")
	})
}

// stale waits until the last confirmation is too old for a page, and opens that.
func (p *person) stale(path string) {
	p.t.Helper()
	p.awaitStale(path)
	p.open(path)
}

// awaitStale waits until the last confirmation is too old for a page. It shows none.
func (p *person) awaitStale(path string) {
	p.t.Helper()
	kit.Eventually(p.t, func() error {
		at, err := p.Run(`return (await fetch(x)).url.slice(location.origin.length)`, path)
		if err == nil && !strings.HasPrefix(string(at), `"/signin/again`) {
			err = fmt.Errorf("the confirmation stays fresh: %s", at)
		}
		return err
	})
}
