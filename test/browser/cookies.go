package browser

import (
	"slices"
	"strings"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/storage"
	"github.com/chromedp/chromedp"
)

// Cookies are those of the profile, of all sites, with their flags, ordered by name.
func (b *Browser) Cookies() []*network.Cookie {
	b.t.Helper()
	all := browserCall(b, storage.GetCookies, storage.GetCookiesParams{BrowserContextID: b.profile()}).Cookies
	slices.SortFunc(all, func(x, y *network.Cookie) int { return strings.Compare(x.Name, y.Name) })
	return all
}

// Cookie is the cookie with a name, nil if there is none.
func (b *Browser) Cookie(name string) *network.Cookie {
	b.t.Helper()
	all := b.Cookies()
	if i := slices.IndexFunc(all, func(c *network.Cookie) bool { return c.Name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// DeleteCookie deletes the cookies with a name.
func (b *Browser) DeleteCookie(name string) {
	b.t.Helper()
	for _, c := range b.Cookies() {
		if c.Name == name {
			call(b, network.DeleteCookies, network.DeleteCookiesParams{Name: c.Name, Domain: c.Domain, Path: c.Path})
		}
	}
}

// DeleteCookies deletes all cookies of the profile.
func (b *Browser) DeleteCookies() {
	b.t.Helper()
	browserCall(b, storage.ClearCookies, storage.ClearCookiesParams{BrowserContextID: b.profile()})
}

// PutCookie puts a cookie of another profile into this one, as a thief would, or another value
// into one's own.
func (b *Browser) PutCookie(c *network.Cookie) {
	b.t.Helper()
	browserCall(b, storage.SetCookies, storage.SetCookiesParams{BrowserContextID: b.profile(), Cookies: []*network.CookieParam{{
		Name: c.Name, Value: c.Value, Domain: c.Domain, Path: c.Path, Secure: c.Secure, HTTPOnly: c.HTTPOnly, SameSite: c.SameSite,
		SourceScheme: c.SourceScheme, SourcePort: c.SourcePort,
	}}})
}

func (b *Browser) profile() cdp.BrowserContextID {
	return chromedp.FromContext(b.ctx).BrowserContextID
}

func browserCall[P, R any](b *Browser, command cdp.Command[P, R], params P) R {
	b.t.Helper()
	result, err := chromedp.CallBrowser(b.ctx, command, params)
	if err != nil {
		b.t.Fatalf("%s: %v", command.Method, err)
	}
	return result
}
