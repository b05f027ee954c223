package session

import "testing"

// The user of a cookie is read without asking anybody, and only from what has its form.
func TestCookieUser(t *testing.T) {
	b := newBench(t, nil)
	sess, cookie := b.startBrowser(t)
	if got := CookieUser(cookie); got != sess.UserID {
		t.Errorf("%q, not %q", got, sess.UserID)
	}
	for _, other := range []string{"", cookie[1:], cookie + "A", RefreshPrefix + cookie[len(CookiePrefix):]} {
		if got := CookieUser(other); got != "" {
			t.Errorf("%q is of %q", other, got)
		}
	}
}
