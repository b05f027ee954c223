package admin

import (
	"testing"
	"time"

	"github.com/watchword-auth/watchword/test/browser"
)

// The overview is renewed while somebody looks at it. What they have opened, and where they are,
// stays.
func TestLive(t *testing.T) {
	s := newScene(t)
	one := s.replica("auth-0")
	one.signs(3, 0)
	s.pass(20 * time.Second)
	b := s.open()
	b.Open(s.URL + "/admin?span=5m")
	const figure, ask = `document.querySelector(".now .figure").textContent`, `document.dispatchEvent(new Event("visibilitychange"))`
	if got := browser.Eval[string](b, figure); got != "3" {
		t.Fatalf("%s sign-ins", got)
	}
	browser.Eval[bool](b, `(() => { const d = document.querySelector("#chart-sign-ins details"); d.open = true; d.querySelector("summary").focus(); d.querySelector(".scroll").scrollLeft = 0; return true; })()`)
	one.signs(4, 0)
	one.answers(10, 5, time.Millisecond)
	s.pass(20 * time.Second) // a point is complete some seconds after its end
	browser.Eval[bool](b, ask)
	b.Until(figure + ` === "7"`)
	b.Until(`document.querySelector("#chart-sign-ins details").open && document.activeElement === document.querySelector("#chart-sign-ins summary")`)
	b.Until(`document.getElementById("live-state").textContent === "One problem needs attention"`)
	if !browser.Eval[bool](b, `[...document.querySelectorAll("main time")].every(t => t.title)`) {
		t.Error("times are not those of the viewer's zone")
	}

	// A page that nobody sees asks for nothing.
	before := s.state.lists.Load()
	browser.Eval[bool](b, `(() => { Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true }); return `+ask+`; })()`)
	browser.Eval[bool](b, `(() => { delete document.visibilityState; return `+ask+`; })()`)
	b.Until(`!document.querySelector(".htmx-request")`)
	if n := s.state.lists.Load() - before; n != 1 {
		t.Errorf("%d requests, want the one of the page that is seen again", n)
	}
	if problems := b.Problems(); len(problems) > 0 {
		t.Error(problems)
	}

	// After the end of the session nothing is asked any more: the page loads itself again, and
	// is the one for somebody who is not signed in.
	b.Tolerate("401|Unauthorized|htmx")
	b.DeleteCookies()
	browser.Eval[bool](b, ask)
	b.Until(`!document.querySelector("[data-live]")`)

	// When nobody answers, what is shown says so.
	b.PutCookie(s.browserCookie())
	b.Open(s.URL + "/admin")
	b.Tolerate("ERR_|Failed to load|htmx")
	s.server.CloseClientConnections()
	s.server.Listener.Close()
	browser.Eval[bool](b, ask)
	b.Until(`document.getElementById("live-state").textContent.startsWith("The service does not answer.")`)
}
