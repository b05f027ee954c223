package kit

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A complaint is a testing.TB that notes errors.
type complaint struct {
	testing.TB
	text string
}

func (c *complaint) Helper()                        {}
func (c *complaint) Errorf(format string, a ...any) { c.text += fmt.Sprintf(format, a...) }

// A log with a secret in it fails the test, wherever the secret has been seen.
func TestKeepsSecrets(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "cookie-of-0123456789"})
		fmt.Fprint(w, `{"access_token":"eyJhbGci.eyJzdWIi.signature_0123456789","refresh_token":"refresh-0123456789","codes":["code-0123456789"],"session_id":"session-0123456789"}`)
	})
	c := &Client{T: t, URL: "http://127.0.0.1", Handler: h}
	c.Do("POST", "/", "eyJhbGci.eyJzdWIi.another_0123456789", map[string]string{"password": "pass word 0123", "username": "user-0123456789"})
	for word, secret := range map[string]bool{
		"signature_0123456789": true, "eyJhbGci.eyJzdWIi.another_0123456789": true, "refresh-0123456789": true, "code-0123456789": true,
		"cookie-of-0123456789": true, "pass word 0123": true, Password: true, ClusterSecret: true,
		"session-0123456789": false, "user-0123456789": false, "eyJhbGci": false,
	} {
		seen := &complaint{}
		KeepsSecrets(seen, "{\"msg\":\"begin\"}\n{\"msg\":\"x\",\"err\":\"about /"+word+"; done\"}\n{}\n")
		if (seen.text != "") != secret || secret && !strings.HasSuffix(seen.text, `{"msg":"x","err":"about /`+word+`; done"}`) {
			t.Errorf("%s: %q", word, seen.text)
		}
	}
}
