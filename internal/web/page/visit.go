package page

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/a-h/templ"

	"github.com/watchword-auth/watchword/internal/directory"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/login"
)

// A Visit is one request of a browser, and its answer.
type Visit struct {
	Writer  http.ResponseWriter
	Request *http.Request
	// By is the one who is signed in; nil: nobody.
	By     *login.Browser
	Client login.Client

	kit   *Kit
	route route
	lang  *catalogue
	// compressed: nothing in the answer is secret; see Compress.
	compressed bool
	plain      bool // see Kit.plain
	nav        []NavItem
	user       string
	form       url.Values
}

func (k *Kit) visit(w http.ResponseWriter, r *http.Request) *Visit {
	v := &Visit{Writer: w, kit: k, Client: k.Proxies.Client(r), form: url.Values{}}
	v.Client.Browser = true
	v.plain = k.plain(r)
	v.Request = r.WithContext(context.WithValue(r.Context(), visitKey{}, v))
	v.lang = v.language()
	return v
}

type visitKey struct{}

// Of returns the visit that a context belongs to. Templates have it in their ctx.
func Of(ctx context.Context) *Visit {
	v, _ := ctx.Value(visitKey{}).(*Visit)
	return v
}

// Actor returns who is signed in, as the directory knows them.
func (v *Visit) Actor() directory.Actor { return directory.Holder(v.By.Token, v.Client.Address) }

// T returns a text of the catalogue in the visitor's language. The arguments are pairs of a
// name and a value.
func (v *Visit) T(key string, args ...any) string { return v.lang.text(key, args...) }

// T is Visit.T for templates.
func T(ctx context.Context, key string, args ...any) string { return Of(ctx).T(key, args...) }

// Lang is the visitor's language (BCP 47).
func (v *Visit) Lang() string { return v.lang.tag.String() }

// Now is the time of the visit.
func (v *Visit) Now() time.Time { return v.kit.Now() }

// Kit returns what all pages share.
func (v *Visit) Kit() *Kit { return v.kit }

// IsHTMX reports whether htmx sent the request, and replaces a part of the page.
func (v *Visit) IsHTMX() bool { return v.Request.Header.Get("HX-Request") == "true" }

// Frame sets what the pages of this visit have around them that are not Narrow, those of errors
// too, unless their Layout has a Nav of its own: where they lead, and the name of who is signed in.
func (v *Visit) Frame(nav []NavItem, user string) { v.nav, v.user = nav, user }

// Show answers with a whole page.
func (v *Visit) Show(status int, l Layout) error {
	if !l.Narrow && len(l.Nav) == 0 {
		l.Nav, l.User = v.nav, v.user
	}
	return v.write(status, v.kit.page(v, l))
}

// Fragment answers htmx with a part of a page.
func (v *Visit) Fragment(status int, c templ.Component) error { return v.write(status, c) }

// write answers with HTML. It is not compressed: pages have secrets (recovery codes, keys of
// authenticator apps) beside what came with the request, and the length of an answer that is
// compressed tells of both together (BREACH). The assets, which have neither, are; and so is a
// page that says so of itself.
func (v *Visit) write(status int, c templ.Component) error {
	var b bytes.Buffer
	// The server ends the context of a request whose body came too slowly, which is to be said.
	if err := c.Render(context.WithoutCancel(v.Request.Context()), &b); err != nil {
		return err
	}
	h, body := v.Writer.Header(), b.Bytes()
	h.Set("Content-Type", "text/html; charset=utf-8")
	if v.compressed {
		h.Set("Vary", "Accept-Encoding")
		if smaller := gzippedBy(gzip.BestSpeed, body); smaller != nil && httpkit.AcceptsGzip(v.Request.Header) {
			h.Set("Content-Encoding", "gzip")
			body = smaller
		}
	}
	httpkit.WriteSlowly(v.Writer, status, body)
	return nil
}

// Compress has the answer compressed for a browser that accepts it. It is for pages in which
// nothing is secret.
func (v *Visit) Compress() { v.compressed = true }

// JSON answers a script.
func (v *Visit) JSON(status int, x any) error {
	b, err := json.Marshal(x)
	if err != nil {
		return err
	}
	v.Writer.Header().Set("Content-Type", "application/json")
	httpkit.WriteSlowly(v.Writer, status, b)
	return nil
}

// ReadJSON reads what a script sent, strictly.
func (v *Visit) ReadJSON(x any) error { return httpkit.ReadJSON(v.Writer, v.Request, x) }
