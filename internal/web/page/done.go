package page

import (
	"crypto/sha256"
	"encoding/base64"
)

// doneCookie has a digest of the address of the page that says what was done.
const doneCookie Cookie = "watchword-done"

// Done has the browser get a page whose address says what was done, as one that offers to undo
// it. WasDone holds for that page for a minute.
func (v *Visit) Done(to string) error {
	v.SetCookie(doneCookie, doneAt(to), flashFor)
	return v.Redirect(to)
}

// WasDone reports whether this browser was led here by Done. Whoever makes a link with such an
// address could otherwise have the page say that something was done that never was, with a button
// that does something else than to undo it.
func (v *Visit) WasDone() bool { return v.Cookie(doneCookie) == doneAt(v.Request.URL.RequestURI()) }

func doneAt(to string) string {
	sum := sha256.Sum256([]byte(to))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}
