package browser

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// aSite serves a sign-in page, as those that this harness is for, and others.
func aSite(t *testing.T) (origin string) {
	t.Helper()
	mux := http.NewServeMux()
	html := func(pattern, title, body string) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprintf(w, `<!doctype html><html lang="en"><head><title>%s</title><meta name="viewport" content="width=device-width, initial-scale=1">
				<link rel="stylesheet" href="/style.css"><link rel="icon" href="data:,"><script src="/script.js" defer></script></head><body><main>%s</main></body></html>`, title, body)
		})
	}
	html("GET /{$}", "Sign in", `<h1>Sign in</h1><p id="late"></p>
		<form method="post" action="/signin">
		<label for="u">Username</label><input id="u" name="username" autocomplete="username">
		<label>Password <input type="password" name="password"></label>
		<input name="hidden" type="hidden" value="x">
		<label><input type="checkbox" name="remember"> Remember me</label>
		<label for="lang">Language</label><select id="lang" name="lang"><option>English</option><option>Deutsch</option></select>
		<button>Sign in</button></form>
		<ul><li id="one"><button type="button" class="end">End</button></li><li id="two"><button type="button" class="end">End</button></li></ul>
		<p><a href="/other">Elsewhere</a></p>`)
	html("GET /other", "Elsewhere", `<h1>Elsewhere</h1><p>Nothing here.</p>`)
	html("GET /moves", "Moves", `<h1>Moves</h1><p id="late"></p><a href="/other">Elsewhere</a>`)
	html("GET /wide", "Wide", `<h1>Wide</h1><p class="wide">too wide</p>`)
	html("GET /poor", "Poor", `<h2>Poor</h2><img src="/pixel.png"><input name="q"><a href="/other" class="pale">Pale</a>`)
	html("GET /evil", "Evil", `<h1>Evil</h1><script>document.title = 'hacked'</script><p style="color: red">red</p><img alt="" src="http://elsewhere.test:1/x.png"><img alt="" src="/missing.png">`)
	html("GET /unseen", "Unseen", `<h1>Unseen</h1><button>Seen</button><button class="unseen">Unseen</button>`)
	html("GET /pictures", "Pictures", `<h1>Pictures</h1><table class="big"><caption>Users</caption>`+strings.Repeat(`<tr><td>alice</td><td>alice@example.com</td><td>2026-11-29 23:44</td></tr>`, 200)+`</table>`)
	mux.HandleFunc("POST /signin", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "secret", Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
		http.Redirect(w, r, "/welcome?"+r.PostFormValue("username")+"+"+r.PostFormValue("password")+"+"+r.PostFormValue("remember")+"+"+r.PostFormValue("lang"), http.StatusSeeOther)
	})
	mux.HandleFunc("GET /welcome", func(w http.ResponseWriter, r *http.Request) {
		_, err := r.Cookie("session")
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprintf(w, `<!doctype html><title>Welcome</title><link rel="icon" href="data:,"><p>%s</p><p>cookie: %t</p>`, r.URL.RawQuery, err == nil)
	})
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/css")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		fmt.Fprint(z, `:root { color-scheme: light dark } body { background: rgb(255, 255, 255); color: #222; font-family: sans-serif } .wide { width: 900px } .pale { color: #eee }
			@media (prefers-color-scheme: dark) { body { background: rgb(10, 20, 30); color: #eee } }
			@media (prefers-reduced-motion: reduce) { main { border-top: 1px solid } }
			button { min-height: 2rem; transition: outline 3s } .unseen:focus { outline: none } h1 { animation: come 10s } @keyframes come { from { opacity: 0 } }`+strings.Repeat(" ", 20000))
		z.Close()
	})
	mux.HandleFunc("GET /script.js", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		fmt.Fprint(w, `const late = document.getElementById('late');
			if (late) setTimeout(() => { late.textContent = 'by a script' }, 50);
			if (location.pathname === '/moves') addEventListener('mousedown', () => { late.style.height = '200px' }, {once: true});
			for (const b of document.querySelectorAll('.end')) b.addEventListener('click', e => b.parentElement.append(' ended by ' + e.detail));
			if (location.pathname === '/evil') { console.error('so it goes', 3); setTimeout(() => { throw new TypeError('thrown') }); fetch('/other').then(() => alert('hello')) }`)
	})
	mux.HandleFunc("GET /pixel.png", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "image/svg+xml")
		fmt.Fprint(w, `<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>`)
	})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
}

// A person signs in by what they see, with scripts and without.
func TestForms(t *testing.T) {
	origin := aSite(t)
	b := NewWithHistory(t)
	for _, scripts := range []bool{true, false} {
		b.Scripts(scripts)
		b.Open(origin)
		if got := b.Status(); got != 200 {
			t.Errorf("status %d", got)
		}
		if scripts {
			b.Sees("by a script")
		} else {
			b.SeesNot("by a script")
		}
		b.Fill("Username", "nobody")
		b.Fill("Username", "alice")
		b.Fill("password", "pass") // by its name: its label says Password
		b.Fill("Password", "word")
		b.Check("Remember me", true)
		b.Check("Remember me", true)
		b.Choose("Language", "Deutsch")
		if got := b.Value("Username") + b.Value("Remember me") + b.Value("Language"); got != "alicetrueDeutsch" {
			t.Errorf("the form has %s", got)
		}
		b.Follow("button", "Sign in")
		b.Sees("alice+word+on+Deutsch", "cookie: true")
		if got := b.Status(); got != 422 || b.Header("Content-Security-Policy") != policy || b.Path() != "/welcome?alice+word+on+Deutsch" {
			t.Errorf("%d %s %s", got, b.Path(), b.Header("Content-Security-Policy"))
		}
		b.Back()
		b.Sees("Sign in")
		b.Follow("link", "Elsewhere")
		if got := b.Text(); got != "Elsewhere Nothing here." {
			t.Errorf("the text is %q", got)
		}
		b.Reload()
		b.SeesNot("Sign in")
	}
	b.Scripts(true)
	b.Open(origin)
	b.Sees("by a script")
	b.In("#two").Click("button", "End")
	b.Sees("ended by 1")
	b.In("#one").DoubleClick("button", "End")
	b.In("#one").Sees("ended by 1 ended by 2")
	if got := b.Names("button"); !slices.Equal(got, []string{"Sign in", "End", "End"}) {
		t.Errorf("the buttons are %q", got)
	}
	if !b.Has("link", "Elsewhere") || b.Has("button", "Elsewhere") {
		t.Error("there is one link, and it is no button")
	}
	b.Fill("Username", "bob")
	b.Press("Tab")
	if role, name := b.Focused(); role != "textbox" || name != "Password" {
		t.Errorf("the focus is on the %s %q", role, name)
	}
	b.Press("secret")
	b.Navigates(func() { b.Press("Enter") })
	b.Sees("bob+secret++English")
	if got := b.Describe(); !strings.Contains(got, "title: Welcome") || !strings.Contains(got, "bob+secret") || !strings.Contains(got, "(422)") {
		t.Errorf("a failure says %s", got)
	}
}

// What a script moves away from under the mouse, in the middle of a click, is clicked where it is
// then.
func TestClickOnWhatMoves(t *testing.T) {
	b := New(t)
	b.Open(aSite(t) + "/moves")
	b.Follow("link", "Elsewhere")
	b.Sees("Nothing here.")
}

// Each thing that goes wrong in a page is noted.
func TestProblems(t *testing.T) {
	origin := aSite(t)
	b := New(t)
	b.Open(origin + "/evil")
	wanted := []string{"request to another origin: GET http://elsewhere.test", "console: so it goes 3", "TypeError: thrown", "dialog (alert): hello", "elsewhere.test", "/missing.png: 404", "inline script", "inline style"}
	b.insist("all problems", func() error {
		all := strings.Join(b.record.problemsNow(), "\n")
		for _, want := range wanted {
			if !strings.Contains(all, want) {
				return fmt.Errorf("nothing about %q", want)
			}
		}
		return nil
	})
	if got := Eval[string](b, "document.title"); got != "Evil" {
		t.Errorf("the inline script ran: %s", got)
	}
	all := b.Problems()
	t.Logf("%s", strings.Join(all, "\n"))
	if got := b.Problems(); len(got) > 0 {
		t.Errorf("once more: %q", got)
	}
	b.Tolerate("inline|elsewhere|missing|console|thrown|dialog")
	b.Open(origin + "/evil")
	b.Weight()

	// What is left fails a test.
	fake := &failures{TB: t}
	c := open(fake, usual.get(t))
	c.Open(origin)
	Eval[bool](c, "(console.error('left'), true)")
	c.insist("the problem", func() error {
		if len(c.record.problemsNow()) == 0 {
			return errNone
		}
		return nil
	})
	for _, f := range slices.Backward(fake.cleanups) {
		f()
	}
	if !slices.Equal(fake.errors, []string{"in the browser: console: left"}) {
		t.Errorf("the test fails with %q", fake.errors)
	}
}

// failures is a test that fails.
type failures struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (f *failures) Errorf(format string, args ...any) {
	f.errors = append(f.errors, fmt.Sprintf(format, args...))
}
func (f *failures) Cleanup(g func()) { f.cleanups = append(f.cleanups, g) }

func TestProfilesAndCookies(t *testing.T) {
	origin := aSite(t)
	signIn := func(b *Browser) {
		b.Open(origin)
		b.Fill("Username", "alice")
		b.Follow("button", "Sign in")
	}
	b, other := New(t), New(t)
	signIn(b)
	tab := b.Tab()
	tab.Open(origin + "/welcome")
	tab.Sees("cookie: true")
	other.Open(origin + "/welcome")
	other.Sees("cookie: false")

	c := b.Cookie("session")
	if c == nil || !c.HTTPOnly || c.Secure || c.SameSite != "Lax" || c.Path != "/" || !c.Session || c.Value != "secret" {
		t.Fatalf("the cookie is %+v", c)
	}
	other.PutCookie(c)
	other.Reload()
	other.Sees("cookie: true")
	b.DeleteCookie("session")
	tab.Reload()
	tab.Sees("cookie: false")
	other.DeleteCookies()
	if len(other.Cookies()) > 0 {
		t.Errorf("cookies are left")
	}

	refuses := NewWithoutCookies(t)
	signIn(refuses)
	refuses.Sees("cookie: false")
	if refuses.Cookie("session") != nil {
		t.Errorf("the cookie was kept")
	}
}

func TestLooks(t *testing.T) {
	origin := aSite(t)
	b := New(t)
	b.Open(origin)
	background := "getComputedStyle(document.body).backgroundColor"
	for scheme, want := range map[string]string{Dark: "rgb(10, 20, 30)", Light: "rgb(255, 255, 255)"} {
		b.Scheme(scheme)
		if got := Eval[string](b, background); got != want {
			t.Errorf("%s: %s", scheme, got)
		}
	}
	b.Scheme(Light)
	b.ReducedMotion(true)
	if !Eval[bool](b, "matchMedia('(prefers-reduced-motion: reduce)').matches && matchMedia('(prefers-color-scheme: light)').matches") {
		t.Error("no reduced motion, or no colours")
	}
	b.View(Phone)
	if got := Eval[int](b, "innerWidth"); got != 390 {
		t.Errorf("the phone is %d wide", got)
	}
	b.Fits()
	wide := New(t)
	fake := &failures{TB: t}
	wide.View(Phone)
	wide.Open(origin + "/wide")
	wide.t = fake
	wide.Fits()
	wide.t = t
	if len(fake.errors) != 2 || !strings.Contains(fake.errors[1], `class="wide"`) {
		t.Errorf("too wide: %q", fake.errors)
	}

	b.View(Desktop)
	b.Open(origin + "/pictures")
	first := b.Screenshot()
	if !bytes.Equal(first, b.Screenshot()) {
		t.Error("two pictures differ")
	}
	picture, err := png.Decode(bytes.NewReader(first))
	if err != nil || picture.Bounds().Dx() != 1280 || picture.Bounds().Dy() < 2000 {
		t.Errorf("the picture is %v, %v", picture.Bounds(), err)
	}
	b.Pictures("harness")
	if got := Eval[int](b, "devicePixelRatio"); got != 1 || Eval[int](b, "innerWidth") != 1280 {
		t.Errorf("afterwards the browser shows pages otherwise")
	}
}

// A picture for a document is sharp, and has few colours, which are those of the page.
func TestPicture(t *testing.T) {
	origin := aSite(t)
	b := New(t)
	b.Open(origin)
	b.look.view = View{Width: 200, Height: 100}
	small, err := png.Decode(bytes.NewReader(b.picture()))
	if err != nil || small.Bounds().Dx() < 400 {
		t.Fatalf("%v", err)
	}
	if _, paletted := small.(*image.Paletted); !paletted {
		t.Errorf("it is a %T", small)
	}

	many := image.NewRGBA(image.Rect(0, 0, 64, 64))
	for y := range 64 {
		for x := range 64 {
			many.SetRGBA(x, y, color.RGBA{uint8(4 * x), uint8(4 * y), 128, 255})
		}
	}
	var encoded bytes.Buffer
	if err := png.Encode(&encoded, many); err != nil {
		t.Fatal(err)
	}
	fewer, err := fewColours(encoded.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	got, err := png.Decode(bytes.NewReader(fewer))
	if err != nil {
		t.Fatal(err)
	}
	for y := range 64 {
		for x := range 64 {
			c := color.RGBAModel.Convert(got.At(x, y)).(color.RGBA)
			if dr, dg := int(c.R)-4*x, int(c.G)-4*y; dr*dr+dg*dg > 40*40 || c.B != 128 {
				t.Fatalf("at %d, %d is %v", x, y, c)
			}
		}
	}
}

func TestKeyboard(t *testing.T) {
	origin := aSite(t)
	b := New(t)
	b.Open(origin)
	want := []Stop{{"textbox", "Username", true}, {"textbox", "Password", true}, {"checkbox", "Remember me", true}, {"combobox", "Language", true},
		{"button", "Sign in", true}, {"button", "End", true}, {"button", "End", true}, {"link", "Elsewhere", true}}
	if got := b.TabOrder(); !slices.Equal(got, want) {
		t.Errorf("the Tab key stops at %v", got)
	}
	b.Open(origin + "/unseen")
	if got := b.TabOrder(); !slices.Equal(got, []Stop{{"button", "Seen", true}, {"button", "Unseen", false}}) {
		t.Errorf("the Tab key stops at %v", got)
	}
}

func TestAxe(t *testing.T) {
	origin := aSite(t)
	b := New(t)
	for _, scheme := range []string{Light, Dark} {
		b.Scheme(scheme)
		b.Open(origin)
		Axe(t, b)
	}
	b.Scheme(Light)
	b.Open(origin + "/poor")
	var ids []string
	for _, v := range b.axe(practices(nil)) {
		ids = append(ids, v.ID)
		t.Log(v)
	}
	for _, want := range []string{"image-alt", "label", "color-contrast", "page-has-heading-one"} {
		if !slices.Contains(ids, want) {
			t.Errorf("axe-core says nothing of %s: %v", want, ids)
		}
	}
	for _, v := range b.axe(practices([]string{"label"})) {
		if v.ID == "label" {
			t.Error("label was left out")
		}
	}
	if found := b.axe(colours); len(found) != 1 || found[0].ID != "color-contrast" {
		t.Errorf("of the colours axe-core says %v", found)
	}
}

func TestWeight(t *testing.T) {
	origin := aSite(t)
	b := New(t)
	b.Open(origin)
	total, all := b.Weight()
	sum := 0
	for _, transfer := range all {
		sum += transfer.Bytes
		if transfer.Kind == "Stylesheet" && (transfer.Encoding != "gzip" || transfer.Bytes > 2000) || transfer.Bytes < 200 {
			t.Errorf("%+v", transfer)
		}
	}
	if len(all) != 3 || sum != total {
		t.Errorf("%d bytes of %+v", total, all)
	}
}

// A passkey that a form offers by itself is used at once if the user is there, and else it waits
// until the page gives up, as it does when the user types a password.
func TestConditionalMediation(t *testing.T) {
	w := newWorld(t)
	device := w.AddAuthenticator(Options{})
	w.register()
	options, _, _, err := w.party.BeginDiscoverable()
	if err != nil {
		t.Fatal(err)
	}
	begin := func() {
		t.Helper()
		if _, err := w.Run(`if (!await PublicKeyCredential.isConditionalMediationAvailable()) throw new Error('not available');
			document.title = 'waits';
			globalThis.abort = new AbortController();
			navigator.credentials.get({mediation: 'conditional', signal: abort.signal, publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(x.publicKey)})
				.then(c => { document.title = 'got ' + c.type }, e => { document.title = 'got ' + e.name })`, options); err != nil {
			t.Fatal(err)
		}
	}
	begin()
	w.Until("document.title === 'got public-key'")
	device.SetPresent(false)
	begin()
	Eval[bool](w.Browser, "(abort.abort(), true)")
	w.Until("document.title === 'got AbortError'") // so it has waited
	device.SetPresent(true)
	begin()
	w.Until("document.title === 'got public-key'")
}
