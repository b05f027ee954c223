package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpapi"
	"github.com/watchword-auth/watchword/test/kit"
	"github.com/watchword-auth/watchword/test/replica"
)

// The script of docs/mfa.md works as it stands there, in a page that has one origin with a replica.
func TestScriptInTheGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/mfa.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```js\n(.*?)```").FindAllSubmatch(guide, -1)
	if len(blocks) != 1 {
		t.Fatalf("docs/mfa.md has %d scripts, and this test runs one", len(blocks))
	}
	script := string(blocks[0][1])

	var w *replica.World
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			w.Replica.Handler().ServeHTTP(rw, r)
			return
		}
		rw.Header().Set("Content-Type", "text/html")
		fmt.Fprint(rw, "<!doctype html><title>log in</title>")
	}))
	t.Cleanup(server.Close)
	origin := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	w = replica.New(t, func(cfg *config.Config) { cfg.Server.PublicURL = origin })
	w.User("alice")
	b := New(t)
	b.Open(origin)
	b.AddAuthenticator(Options{})
	run := func(call string, x any) httpapi.Grant {
		t.Helper()
		got, err := b.Run(script+"\nreturn await "+call, x)
		if err != nil {
			t.Fatalf("%s: %v", call, err)
		}
		return kit.Decode[httpapi.Grant](t, kit.Answer{Status: http.StatusOK, Body: got})
	}
	methods := func(g httpapi.Grant) string { return fmt.Sprint(w.Verify(g.AccessToken)["amr"]) }

	g := run("login('alice', x)", kit.Password)
	if got := methods(g); got != "[pwd]" {
		t.Errorf("by the password: %s", got)
	}
	enrolled := run("enrolPasskey('my laptop', x)", g.AccessToken)
	w.Want(w.Do("GET", "/api/verify", g.AccessToken, nil), 401, "token_revoked")
	w.Verify(enrolled.AccessToken)
	for call, want := range map[string]string{"login('alice', x)": "[hwk mfa pwd user]", "loginByPasskey()": "[hwk mfa user]"} {
		if got := methods(run(call, kit.Password)); got != want {
			t.Errorf("%s: %s, want %s", call, got, want)
		}
	}
	stepped := run("stepUp(x)", enrolled.AccessToken)
	if stepped.SessionID != enrolled.SessionID {
		t.Errorf("another session: %s, and not %s", stepped.SessionID, enrolled.SessionID)
	}
	w.Verify(stepped.AccessToken)
}
