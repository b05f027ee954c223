package signin

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/mfa"
	"github.com/watchword-auth/watchword/internal/web/page"
)

// A browser's page.SignInCookie has one of these values.
const (
	mark    = "1"  // cookies are kept
	pending = "p." // a waiting follows: a sign-in waits for its second step
	done    = "d." // the step of the sign-in that was finished last follows
)

// A waiting is a sign-in of which the password was right, and that asks for more. It is kept by
// the browser alone. Of what it says only the token is believed, by package mfa.
type waiting struct {
	Token    string   `json:"t"`           // the mfa_token
	Methods  []string `json:"m,omitempty"` // by which the user may answer
	Enrol    []string `json:"e,omitempty"` // the methods of which the user has to enrol one first
	Username string   `json:"u"`
	Return   string   `json:"r"`
	Until    int64    `json:"x"` // Unix seconds
}

// maxCookie bounds the value of a cookie, in bytes. Browsers keep no longer ones than 4096 with
// name and attributes (RFC 6265bis §5.7).
const maxCookie = 3800

// maxUsername bounds what a cookie has of a name, in bytes.
const maxUsername = 256

func newWaiting(v *page.Visit, c *mfa.Challenge, username string, w way) *waiting {
	if len(username) > maxUsername {
		username = strings.ToValidUTF8(username[:maxUsername], "")
	}
	return &waiting{c.Token, c.Methods, c.Enrol, username, w.Return, v.Now().Add(c.ExpiresIn).Unix()}
}

// set has the browser keep the sign-in.
func (w *waiting) set(v *page.Visit) error {
	value, err := w.encode()
	if err == nil && len(value) > maxCookie {
		short := *w
		short.Return = page.SafeReturn("")
		value, err = short.encode()
	}
	if err == nil {
		v.SetCookie(page.SignInCookie, value, 0)
	}
	return err
}

func (w *waiting) encode() (string, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false) // paths have many &
	err := e.Encode(w)
	return pending + base64.RawURLEncoding.EncodeToString(text.Bytes()), err
}

// step names the sign-in in forms, so that those of another tab are known.
func (w *waiting) step() string {
	sum := sha256.Sum256([]byte(w.Token))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

func (w *waiting) user() string { return mfa.OwnerOf(w.Token) }

// page is the path of the page that asks for what is missing.
func (w *waiting) page() string {
	if len(w.Enrol) > 0 {
		return "/signin/enrol"
	}
	return "/signin/factor"
}

// waitingOf returns the sign-in that waits in the browser; nil: none.
func waitingOf(v *page.Visit) *waiting {
	encoded, ok := strings.CutPrefix(v.Cookie(page.SignInCookie), pending)
	if !ok {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	w := &waiting{}
	if err != nil || json.Unmarshal(text, w) != nil || w.user() == "" || len(w.Methods)+len(w.Enrol) == 0 ||
		!v.Now().Before(time.Unix(w.Until, 0)) {
		return nil
	}
	w.Return = safeReturn(w.Return)
	return w
}

// marked reports whether the browser keeps cookies.
func marked(v *page.Visit) bool { return v.Cookie(page.SignInCookie) != "" }

// setMark has the browser show that it keeps cookies. It forgets no sign-in that waits.
func setMark(v *page.Visit) {
	if !marked(v) {
		v.SetCookie(page.SignInCookie, mark, 0)
	}
}

// setDone has the browser remember which sign-in was finished last, and none that waits.
func setDone(v *page.Visit, step string) {
	if step == "" {
		v.SetCookie(page.SignInCookie, mark, 0)
		return
	}
	v.SetCookie(page.SignInCookie, done+step, 0)
}

// isDone reports whether the browser has finished this sign-in, and is signed in.
func isDone(v *page.Visit, step string) bool {
	return v.By != nil && step != "" && v.Cookie(page.SignInCookie) == done+step
}
