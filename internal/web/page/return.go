package page

import (
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// home is where a browser goes that is to go nowhere else.
const home = "/account"

// maxReturn bounds a path to return to, in bytes.
const maxReturn = 2 << 10

// SafeReturn returns a path, with its query, if it is one of the pages of this server to which
// a sign-in may lead: /account, /admin and those below them. For anything else it returns
// "/account". So nobody makes a link to the sign-in that leads elsewhere.
func SafeReturn(to string) string {
	if len(to) > maxReturn || !isLocal(to) {
		return home
	}
	u, err := url.Parse(to)
	if err != nil || u.Fragment != "" {
		return home
	}
	// What is behind escapes is held against the same rules: servers differ in what they
	// decode first.
	if !isLocal(u.Path) || path.Clean(u.Path) != u.Path || strings.Contains(u.EscapedPath(), "%") {
		return home
	}
	if !slices.ContainsFunc([]string{"/account", "/admin"}, func(root string) bool {
		return u.Path == root || strings.HasPrefix(u.Path, root+"/")
	}) {
		return home
	}
	return to
}

// isLocal reports whether every browser takes a Location for a path of the same server. For
// them "\" is "/", and control characters are nothing (WHATWG URL §4.4).
func isLocal(to string) bool {
	return strings.HasPrefix(to, "/") && !strings.HasPrefix(to, "//") &&
		!strings.ContainsFunc(to, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '\\' })
}

// Redirect has the browser get another page of this server (303).
func (v *Visit) Redirect(to string) error {
	if !isLocal(to) {
		return fmt.Errorf("page: a redirection to what is no path of this server")
	}
	v.Writer.Header().Set("Location", to)
	v.Writer.WriteHeader(303)
	return nil
}
