package page

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/watchword-auth/watchword/test/browser"
)

// The scripts do in a browser what they are for, under the policy that pages have.
func TestScripts(t *testing.T) {
	k := newKit(t, nil)
	var sent atomic.Int64
	opened, release := make(chan struct{}, 10), make(chan struct{})
	k.Get("/account", Anybody, func(v *Visit) error {
		opened <- struct{}{}
		return v.Show(http.StatusOK, Layout{Title: "Account", Live: true, Content: within(Card("All"),
			Time(noon), Ago(noon), ConfirmLink("/account/delete", "Delete"), Code("Codes", "abc"),
			raw(`<div id="live" hx-get="/account/part" hx-trigger="load" hx-swap="innerHTML">before</div>`),
			within(Form("/account/save"), PasswordField(Input{Name: "password", Label: "Password"}), Submit("Save")),
		)})
	})
	k.Get("/account/delete", Anybody, func(v *Visit) error {
		return v.Show(http.StatusOK, Layout{Title: "Delete it?", Content: Confirm(Confirmation{Action: "/account/delete", Text: "It is gone then.", Button: "Delete", Danger: true, Cancel: "/account"})})
	})
	k.Get("/account/part", Anybody, func(v *Visit) error {
		if !v.IsHTMX() {
			t.Error("the part was not asked for by htmx")
		}
		return v.Fragment(http.StatusOK, within(Badge(Good, "after"), Time(noon)))
	})
	k.Post("/account/save", Anybody, func(v *Visit) error {
		sent.Add(1)
		<-release
		return v.Redirect("/account")
	})
	mux := http.NewServeMux()
	k.Mount(mux)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	b := browser.New(t)
	b.Open(strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/account")
	run := func(body string) string {
		t.Helper()
		out, err := b.Run(`const until = async f => { for (let i = 0; i < 200; i++) { const x = f(); if (x) return x; await new Promise(r => setTimeout(r, 25)); } throw new Error("it never came"); };`+body, nil)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		var s string
		if err := json.Unmarshal(out, &s); err != nil {
			return string(out)
		}
		return s
	}
	if got := run(`return document.querySelector("main time:not([data-ago])").textContent`); strings.Contains(got, "UTC") || !strings.Contains(got, "2026") {
		t.Errorf("a time is shown as %q", got)
	}
	if got := run(`return document.querySelector("time[data-ago]").textContent + " | " + document.querySelector("time[data-ago]").title`); !strings.Contains(got, "ago | ") && !strings.Contains(got, "in ") || !strings.Contains(got, "March 14, 2026") {
		t.Errorf("a time ago is shown as %q", got)
	}
	if got := run(`await until(() => document.querySelector("#live .badge")); return document.querySelector("#live").textContent`); !strings.HasPrefix(strings.TrimSpace(got), "after") {
		t.Errorf("htmx has put in %q", got)
	}
	if got := run(`document.querySelector("a[data-dialog]").click();
		const d = await until(() => document.querySelector("dialog[open]"));
		const said = d.querySelector("h2").textContent + " " + d.querySelector("p").textContent + " " + d.querySelector("form").getAttribute("action");
		d.querySelector("[data-cancel]").click();
		await until(() => !document.querySelector("dialog"));
		return said + " " + document.activeElement.textContent`); got != "Delete it? It is gone then. /account/delete Delete" {
		t.Errorf("the dialog: %q", got)
	}
	if got := run(`const f = document.getElementById("f-password"), button = document.querySelector("[data-reveal]");
		const was = [button.hidden, f.type]; button.click(); was.push(f.type); button.click(); was.push(f.type); return was.join(" ")`); got != "false password text password" {
		t.Errorf("showing a password: %s", got)
	}
	if got := run(`return await new Promise(done => {
		let seen = [];
		new ReportingObserver(reports => { seen = seen.concat(reports.map(r => r.body.effectiveDirective + " " + r.body.blockedURL)); }, {types: ["csp-violation"], buffered: true}).observe();
		setTimeout(() => done(seen.join("; ")), 100);
	})`); got != "" {
		t.Errorf("the policy was violated: %s", got)
	}
	if got := run(`const stopped = [], submit = document.querySelector("form[action='/account/save'] button[type=submit]");
		addEventListener("submit", e => stopped.push(e.defaultPrevented));
		submit.click(); submit.click(); submit.click();
		return stopped.join(" ")`); got != "false true true" {
		t.Errorf("three clicks are stopped: %s", got)
	}
	close(release)
	<-opened
	<-opened // where the form leads
	if sent.Load() != 1 {
		t.Errorf("a form was sent %d times", sent.Load())
	}
}
