package app

import (
	"compress/gzip"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/testenv"
)

// No page asks the servers behind it as often as it has rows, but for that of all sessions: it
// reads the session of each of audit.MaxPage sign-ins at most, and asks twice where there is none.
func TestPagesDoNotAskForEachRow(t *testing.T) {
	const (
		users, events, sessions = 2000, 2000, 200
		most                    = 25 // of a user's token, which is made as a sign-in makes it
		tries                   = 5  // the least of them counts: the replica itself asks, too
	)
	c := newCrowded(t, testenv.Postgres(t), "", "linked")
	c.crowd(users, events, sessions)
	cookie := c.signIn("admin")
	for _, page := range c.pages(users, events) {
		c.page(page.path, cookie) // prepares the statements
		asked := c.trips(page.path, cookie)
		most := int64(most)
		if slices.Contains([]string{"sessions", "sessions-deep", "sessions-ended"}, page.name) {
			most += 2 * audit.MaxPage
		}
		for n := 0; asked > most && n < tries; n++ {
			asked = min(asked, c.trips(page.path, cookie))
		}
		t.Logf("summary: %s: %d", page.name, asked)
		if asked > most {
			t.Errorf("%s asks %d times, and may ask %d times", page.path, asked, most)
		}
	}
}

// What a browser loads for its first page, with all that the page needs. The page itself is sent
// as it is, and the files are compressed.
func TestSizesOfFirstPages(t *testing.T) {
	s := newStage(t, nil)
	for path, most := range map[string]int{"/signin": 60_000, "/admin": 100_000} {
		cookie := ""
		if path == "/admin" {
			cookie = s.signIn("admin")
		}
		a := s.ask("GET", path, "", "", "Cookie", cookie, "Accept-Encoding", "gzip")
		sent := textOf(t, a)
		html := sent
		if a.Header.Get("Content-Encoding") == "gzip" {
			r, err := gzip.NewReader(strings.NewReader(sent))
			if err != nil {
				t.Fatal(err)
			}
			all, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			html = string(all)
		}
		if a.StatusCode != 200 {
			t.Fatalf("%s: %d", path, a.StatusCode)
		}
		files := 0
		for _, file := range slices.Compact(slices.Sorted(slices.Values(regexp.MustCompile(`/assets/[^"]+`).FindAllString(html, -1)))) {
			a := s.ask("GET", file, "", "", "Accept-Encoding", "gzip")
			if a.StatusCode != 200 {
				t.Errorf("%s: %d", file, a.StatusCode)
			}
			files += len(textOf(t, a))
		}
		t.Logf("summary: %s: the files have %d bytes, the page %d, sent as %d", path, files, len(html), len(sent))
		if n := files + len(sent); n > most {
			t.Errorf("%s: %d bytes are sent, and there may be %d", path, n, most)
		}
	}
}
