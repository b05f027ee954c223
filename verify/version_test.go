package verify_test

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/verify"
	"github.com/watchword-auth/watchword/verify/revoked"
)

// A laterServer is a model of a server that knows version 2 of the feed, in which an entry may
// revoke the tokens of a whole client. It tells a reader of version 1 each of the client's
// sessions instead.
type laterServer struct {
	mu      sync.Mutex // guards what follows
	entries [3]string  // of each version, as JSON, joined by commas
	events  [3]string  // the same as events
	head    int
	named   map[string]int // how many requests named which version
	breaks  string         // how the server breaks the rule; empty: it follows it
}

// add adds an entry to what readers of the versions are told.
func (s *laterServer) add(kind revoked.Kind, name string, versions ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head++
	id, _ := revoked.Digest(kind, name).MarshalText()
	entry := fmt.Sprintf(`{"seq":%d,"kind":%q,"id":%q,"exp":%d,"reason":"unknown to version 1"}`, s.head, kind, id, time.Now().Add(time.Hour).Unix())
	for _, version := range versions {
		if s.entries[version] != "" {
			s.entries[version] += ","
		}
		s.entries[version] += entry
		s.events[version] += "event: revocation\ndata: " + entry + "\n\n"
	}
}

func (s *laterServer) revokeClient(name string, sessions ...string) {
	s.add("client", name, 2)
	for _, session := range sessions {
		s.add(revoked.Session, session, 1)
	}
}

func (s *laterServer) breakRule(how string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaks = how
}

func (s *laterServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.named[r.URL.Query().Get("version")]++
	s.mu.Unlock()
	asked, _ := strconv.Atoi(cmp.Or(r.URL.Query().Get("version"), "1"))
	head, entries, events, ok := s.answer(asked)
	switch {
	case !ok:
		w.WriteHeader(http.StatusGone)
	case !isStream(r):
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{%s,"heartbeat_ms":100,"entries":[%s],"more":false}`, head, entries)
	default:
		w.Header().Set("Content-Type", "text/event-stream")
		for ; ok; head, _, events, ok = s.answer(asked) {
			if _, err := fmt.Fprintf(w, "event: resume\ndata: {%s}\n\n%sevent: notice\ndata: news\n\nevent: head\ndata: {%s}\n\n", head, events, head); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// answer returns what an answer to a reader of a version is made of; ok is false if there is
// none any more.
func (s *laterServer) answer(asked int) (head, entries, events string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := min(asked, 2)
	says := fmt.Sprintf(`"version":%d,`, in)
	switch s.breaks {
	case "kind":
		in = 2
	case "kind without a version":
		in, says = 2, ""
	case "version":
		in, says = 2, `"version":2,`
	case "version below 1":
		says = `"version":-1,`
	case "version that is no number":
		says = `"version":"1",`
	}
	head = fmt.Sprintf(`%s"log":"a","head":%d,"as_of":%q,"age_ms":0,"new":["member"]`, says, s.head, time.Now().UTC().Format(time.RFC3339Nano))
	return head, s.entries[in], s.events[in], s.breaks != "gone"
}

func newLaterServer() *laterServer { return &laterServer{named: map[string]int{}} }

// What a later kind revokes, a reader of version 1 refuses as well, and nothing else.
func TestALaterServerOfTheFeed(t *testing.T) {
	for name, only := range map[string]func(*front, http.HandlerFunc){"stream": (*front).onlyFeed, "pages": (*front).onlyPages} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, s := newFront(t), newLaterServer()
				only(f, s.ServeHTTP)
				s.add(revoked.Token, "bad", 1, 2)
				v := start(t, f, nil)
				token := f.issuer.Token
				expect(t, v, f.issuer.Sign("u", map[string]any{"jti": "bad"}), verify.ErrRevoked)
				expect(t, v, token("phone", nil), nil)
				s.revokeClient("app", "session-phone", "session-laptop")
				time.Sleep(6 * time.Second) // a stream is tried for so long
				for range 2 {
					expect(t, v, token("phone", nil), verify.ErrRevoked)
					expect(t, v, token("laptop", nil), verify.ErrRevoked)
					expect(t, v, token("other", nil), nil)
					time.Sleep(time.Minute)
				}
				v.Close()
				time.Sleep(time.Second) // the stream ends
				if len(s.named) != 1 || s.named["1"] == 0 {
					t.Errorf("the reader named the versions %v", s.named)
				}
			})
		})
	}
}

// A reader to which a server breaks the rule accepts nothing wrongly, and says nothing false: it
// does not know what is revoked.
func TestAServerOfTheFeedThatBreaksTheRule(t *testing.T) {
	for breaks, logged := range map[string]string{
		"kind":                      `unknown kind \"client\"`,
		"kind without a version":    `unknown kind \"client\"`,
		"version":                   "this reader knows version 1 and must be updated",
		"version below 1":           "this is version -1",
		"version that is no number": "cannot unmarshal string",
		"gone":                      "has ended version 1 of the feed: package verify must be updated",
	} {
		for name, only := range map[string]func(*front, http.HandlerFunc){"stream": (*front).onlyFeed, "pages": (*front).onlyPages} {
			t.Run(breaks+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f, s, log := newFront(t), newLaterServer(), &testenv.Log{}
					only(f, s.ServeHTTP)
					v := start(t, f, func(cfg *verify.Config) { cfg.Logger = slog.New(slog.NewTextHandler(log, nil)) })
					good, bad := f.issuer.Token("good", nil), f.issuer.Sign("bad", map[string]any{"jti": "bad"})
					s.add(revoked.Token, "bad", 1, 2)
					time.Sleep(6 * time.Second)
					expect(t, v, good, nil)
					expect(t, v, bad, verify.ErrRevoked)

					s.breakRule(breaks)
					s.revokeClient("app", "session-phone")
					s.add(revoked.Session, "session-later", 1, 2)
					time.Sleep(verify.DefaultMaxStaleness + time.Second)
					for range 2 {
						expect(t, v, good, verify.ErrStale)
						expect(t, v, f.issuer.Token("phone", nil), verify.ErrStale)
						expect(t, v, f.issuer.Token("later", nil), verify.ErrStale)
						expect(t, v, bad, verify.ErrRevoked)
						time.Sleep(time.Minute)
					}
					if !strings.Contains(log.String(), logged) {
						t.Errorf("the log does not say %q: %s", logged, log)
					}

					s.breakRule("")
					time.Sleep(6 * time.Second)
					expect(t, v, good, nil)
					for _, gone := range []string{"phone", "later"} {
						expect(t, v, f.issuer.Token(gone, nil), verify.ErrRevoked)
					}
					expect(t, v, bad, verify.ErrRevoked)
					v.Close()
					time.Sleep(time.Second)
				})
			})
		}
	}
}
