package page

import (
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/session"
)

// A Cookie is one of those that a browser keeps for this service, by its name without prefix.
type Cookie string

// The cookies.
const (
	SessionCookie  Cookie = "watchword"          // who is signed in
	SignInCookie   Cookie = "watchword-signin"   // cookies are kept; and a sign-in that waits
	DeviceCookie   Cookie = "watchword-device"   // the device that a second factor was presented on
	flashCookie    Cookie = "watchword-flash"    // what the next page says
	languageCookie Cookie = "watchword-language" // the language that was asked for by ui_locales
	formerCookie   Cookie = "watchword-former"   // the id of who was signed in last, and has signed out
)

// name returns the cookie's name for this request. Its prefix has the browser hold that the
// cookie came over TLS from this host alone (RFC 6265bis §4.1.3.2).
func (v *Visit) name(c Cookie) string {
	if v.plain {
		return string(c)
	}
	return "__Host-" + string(c)
}

// plain reports whether a request came by http over loopback. A browser keeps no Secure cookie
// from there, and nobody listens. A request that came through a proxy did not.
func (k *Kit) plain(r *http.Request) bool {
	if r.TLS != nil || r.Header.Get("X-Forwarded-Proto") != "" || r.Header.Get("Forwarded") != "" ||
		strings.HasPrefix(strings.ToLower(k.PublicURL), "https:") {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.IsLoopback()
}

// SetCookie has the browser keep a cookie. maxAge 0: until it is closed.
func (v *Visit) SetCookie(c Cookie, value string, maxAge time.Duration) {
	http.SetCookie(v.Writer, &http.Cookie{
		Name: v.name(c), Value: value, Path: "/", MaxAge: int(maxAge / time.Second),
		HttpOnly: true, Secure: !v.plain, SameSite: http.SameSiteLaxMode,
	})
}

// ClearCookie has the browser forget a cookie.
func (v *Visit) ClearCookie(c Cookie) { v.SetCookie(c, "", -time.Second) }

// Cookie returns the value of a cookie; empty: the browser sent none, or several of that name,
// of which nobody knows the right one.
func (v *Visit) Cookie(c Cookie) string {
	found := v.Request.CookiesNamed(v.name(c))
	if len(found) != 1 {
		return ""
	}
	return found[0].Value
}

// SetSession has the browser keep the cookie of a session that began.
func (v *Visit) SetSession(cookie string) { v.SetCookie(SessionCookie, cookie, 0) }

// ClearSession has the browser forget its session, but not whose it was; see LastUser.
func (v *Visit) ClearSession() {
	if user := v.LastUser(); user != "" {
		v.SetCookie(formerCookie, user, 0)
	}
	v.ClearCookie(SessionCookie)
}

// LastUser returns the id of the user whom the browser's latest session was of, also when that is
// over; empty: there was none. It proves nothing: a form that another tab still has is theirs.
func (v *Visit) LastUser() string {
	if cookie := v.Cookie(SessionCookie); cookie != "" {
		return session.CookieUser(cookie)
	}
	return v.Cookie(formerCookie)
}

// A FlashKind is how a message looks.
type FlashKind string

// The kinds of messages.
const (
	Success FlashKind = "success"
	Info    FlashKind = "info"
	Warning FlashKind = "warning"
	Failure FlashKind = "failure"
)

const (
	// maxFlash bounds a flash message, in bytes: browsers keep cookies of 4096.
	maxFlash = 1500
	// flashFor is how long a page that never comes is waited for.
	flashFor = time.Minute
)

// Flash has the next page that this browser gets show a message, once. It is kept by the
// browser, so that any replica shows it: it must not say what is secret.
func (v *Visit) Flash(kind FlashKind, text string) {
	for len(text) > maxFlash {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	v.SetCookie(flashCookie, base64.RawURLEncoding.EncodeToString([]byte(string(kind)+":"+text)), flashFor)
}

// takeFlash returns the message that the browser keeps, and has it forget it.
func (v *Visit) takeFlash() *Message {
	if len(v.Request.CookiesNamed(v.name(flashCookie))) == 0 {
		return nil
	}
	value := v.Cookie(flashCookie)
	v.ClearCookie(flashCookie)
	b, err := base64.RawURLEncoding.DecodeString(value)
	kind, text, ok := strings.Cut(string(b), ":")
	if err != nil || !ok || len(text) > maxFlash || !utf8.ValidString(text) ||
		!slices.Contains([]FlashKind{Success, Info, Warning, Failure}, FlashKind(kind)) {
		return nil // nobody here wrote it
	}
	return &Message{Kind: FlashKind(kind), Text: text}
}
