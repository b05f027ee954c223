package signin

import (
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/watchword-auth/watchword/internal/web/page"
)

// A kept is a form that was sent when the session had ended, or was too old for it. The browser
// alone has it, in a field of the forms of the sign-in. It has no secrets.
type kept struct {
	Path    string   `json:"path"` // where it was sent
	User    string   `json:"user"` // the id of who was signed in
	Form    string   `json:"form"`
	Missing []string `json:"missing,omitempty"` // the fields that were secret, to be typed again
}

const (
	keptField = "kept"
	maxKept   = 16 << 10 // bytes
	// maxMissing bounds how many fields are to be typed again.
	maxMissing = 8
	// maxFields bounds how many values a form has that is kept. Each is a field of a page.
	maxFields = 200
)

// secretNames are parts of the names of fields that are never kept.
var secretNames = []string{"password", "code", "token", "secret", "credential"}

// newKept keeps the form of a visit; nil: there is none that could be.
func newKept(v *page.Visit, user string) *kept {
	kind, _, err := mime.ParseMediaType(v.Request.Header.Get("Content-Type"))
	path := v.Request.URL.RequestURI()
	if v.Request.Method != http.MethodPost || err != nil || kind != "application/x-www-form-urlencoded" || user == "" || safeReturn(path) != path {
		return nil
	}
	k := &kept{Path: path, User: user}
	form := url.Values{}
	for name, values := range v.Form() {
		secret := slices.ContainsFunc(secretNames, func(part string) bool { return strings.Contains(strings.ToLower(name), part) })
		switch {
		case !secret:
			form[name] = values
		case slices.ContainsFunc(values, func(s string) bool { return s != "" }):
			k.Missing = append(k.Missing, name)
		}
	}
	slices.Sort(k.Missing)
	k.Form = form.Encode()
	if size(form) > maxFields || len(k.Missing) > maxMissing || len(k.Form) > maxKept || len(k.String()) > 2*maxKept {
		return nil
	}
	return k
}

// String is the value of keptField.
func (k *kept) String() string {
	text, _ := json.Marshal(k) // strings alone
	return base64.RawURLEncoding.EncodeToString(text)
}

// readKept reads the field of a form.
func readKept(v *page.Visit) *kept {
	value := v.Form().Get(keptField)
	if v.Request.Method != http.MethodPost || value == "" || len(value) > 2*maxKept {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(value)
	k := &kept{}
	if err != nil || json.Unmarshal(text, k) != nil || safeReturn(k.Path) != k.Path || k.User == "" || len(k.Missing) > maxMissing {
		return nil
	}
	if form, err := url.ParseQuery(k.Form); err != nil || size(form) > maxFields {
		return nil
	}
	return k
}

// fields are those that are sent again.
func (k *kept) fields() url.Values {
	form, _ := url.ParseQuery(k.Form) // readKept has
	return form
}

// size is how many values a form has.
func size(form url.Values) (n int) {
	for _, all := range form {
		n += len(all)
	}
	return n
}

// names are the names of fields in order.
func names(form url.Values) []string {
	all := make([]string, 0, len(form))
	for name := range form {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// from is the page that a visit came from, if it is one of this server's to return to; else the
// first page of the part that the path belongs to.
func from(v *page.Visit) string {
	u, err := url.Parse(v.Request.Referer())
	if path := ""; err == nil && u.Host == v.Request.Host {
		if path = u.RequestURI(); safeReturn(path) == path {
			return path
		}
	}
	if isAdmin(v.Request.URL.Path) {
		return "/admin"
	}
	return page.SafeReturn("")
}

// noSession answers a visit to a page that needs a session.
func (f *face) noSession(v *page.Visit) error {
	if missing, err := f.noAdministrator(v, v.Request.URL.Path); missing || err != nil {
		return err
	}
	if v.IsHTMX() {
		v.Writer.Header().Set("HX-Redirect", way{Return: from(v)}.to("/signin"))
		v.Writer.WriteHeader(http.StatusUnauthorized)
		return nil
	}
	post, own := v.Request.Method == http.MethodPost, strings.HasPrefix(v.Request.URL.Path, "/signin/")
	switch {
	case own && post:
		return f.sessionEnded(v, wayOf(v))
	case own:
		return v.Redirect(wayOf(v).to("/signin"))
	case post:
		return f.sessionEnded(v, way{Return: from(v), Kept: newKept(v, v.LastUser())})
	}
	return v.Redirect(way{Return: safeReturn(v.Request.URL.RequestURI())}.to("/signin"))
}

// sessionEnded asks for a sign-in after a form was sent without a session.
func (f *face) sessionEnded(v *page.Visit, w way) error {
	text := "signin.session_ended"
	if w.Kept != nil {
		text = "signin.session_ended_kept"
	}
	return f.showForm(v, http.StatusUnauthorized, w, "", &page.Message{Kind: page.Warning, Text: v.T(text)})
}

// reauthenticate answers a visit to a page that needs a fresh session.
func (f *face) reauthenticate(v *page.Visit, _ error) error {
	if v.IsHTMX() {
		v.Writer.Header().Set("HX-Redirect", way{Return: from(v)}.to("/signin/again"))
		v.Writer.WriteHeader(http.StatusUnauthorized)
		return nil
	}
	if v.Request.Method != http.MethodPost {
		return v.Redirect(way{Return: safeReturn(v.Request.URL.RequestURI())}.to("/signin/again"))
	}
	w := way{Return: from(v), Kept: newKept(v, v.By.Token.Subject)}
	return f.showAgain(v, http.StatusUnauthorized, w, "", nil)
}

// askToSend asks whether to send the form that was kept.
func (f *face) askToSend(v *page.Visit, w way) error {
	return v.Show(http.StatusOK, page.Layout{Title: v.T("signin.kept_title"), Narrow: true, Content: keptForm(w)})
}

// goOnWith asks after a sign-in by script.
func (f *face) goOnWith(v *page.Visit) error { return f.arrive(v, wayOf(v), v.By.Token.Subject) }

// fieldName is what a person may read of a field's name.
func fieldName(v *page.Visit, name string) string {
	if key := "signin.field." + name; v.T(key) != key {
		return v.T(key)
	}
	return strings.ReplaceAll(name, "_", " ")
}
