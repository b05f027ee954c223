package cluster

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/verify/revoked"
)

// A peer's page of revocations is believed only if it answers this question, is about the
// feed, and comes from a replica that has the secret.
func TestLyingFeeds(t *testing.T) {
	c := &clock{}
	peer := with(t, c, "auth-1")
	stranger, err := newSecret(strings.Repeat("x", MinSecret))
	if err != nil {
		t.Fatal(err)
	}
	page, err := json.Marshal(revoked.Page{Log: "log", Head: 7, Entries: []revoked.Entry{}})
	if err != nil {
		t.Fatal(err)
	}
	var oldInstance, oldMAC string
	for name, test := range map[string]struct {
		answer   func(w http.ResponseWriter, nonce string) (instance, mac string, body []byte)
		believed bool
	}{
		"honest": {func(_ http.ResponseWriter, nonce string) (string, string, []byte) {
			instance, mac, _ := peer.AnswerFeed(nonce, "log", 5, page)
			return instance, mac, page
		}, true},
		"no MAC": {func(http.ResponseWriter, string) (string, string, []byte) { return "auth-1", "", page }, false},
		"for keys": {func(_ http.ResponseWriter, nonce string) (string, string, []byte) {
			instance, mac, _ := vouched(peer, nonce, page)
			return instance, mac, page
		}, false},
		"another question": {func(_ http.ResponseWriter, nonce string) (string, string, []byte) {
			if oldMAC == "" {
				oldInstance, oldMAC, _ = peer.AnswerFeed(strings.Repeat("n", minNonce), "log", 5, page)
			}
			return oldInstance, oldMAC, page
		}, false},
		"a later place": {func(_ http.ResponseWriter, nonce string) (string, string, []byte) {
			instance, mac, _ := peer.AnswerFeed(nonce, "log", 7, page)
			return instance, mac, page
		}, false},
		"another log": {func(_ http.ResponseWriter, nonce string) (string, string, []byte) {
			instance, mac, _ := peer.AnswerFeed(nonce, "old", 5, page)
			return instance, mac, page
		}, false},
		"another page": {func(_ http.ResponseWriter, nonce string) (string, string, []byte) {
			instance, mac, _ := peer.AnswerFeed(nonce, "log", 5, page)
			return instance, mac, []byte(strings.Replace(string(page), `"head":7`, `"head":8`, 1))
		}, false},
		"in another's name": {func(_ http.ResponseWriter, nonce string) (string, string, []byte) {
			_, mac, _ := peer.AnswerFeed(nonce, "log", 5, page)
			return "auth-2", mac, page
		}, false},
		"another secret": {func(_ http.ResponseWriter, nonce string) (string, string, []byte) {
			return "auth-1", base64.RawURLEncoding.EncodeToString(stranger.feed(nonce, "auth-1", "log", 5, page)), page
		}, false},
		"this replica itself": {func(_ http.ResponseWriter, nonce string) (string, string, []byte) {
			return "auth-0", base64.RawURLEncoding.EncodeToString(peer.secret.feed(nonce, "auth-0", "log", 5, page)), page
		}, false},
		"503": {func(w http.ResponseWriter, nonce string) (string, string, []byte) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return "", "", nil
		}, false},
		"without end": {func(_ http.ResponseWriter, nonce string) (string, string, []byte) {
			body := []byte(strings.Repeat(" ", maxFeedPage+1))
			instance, mac, _ := peer.AnswerFeed(nonce, "log", 5, body)
			return instance, mac, body
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/api/revocations" || r.URL.Query().Get("version") != "1" || r.Header.Get("Last-Event-ID") != "log:5" {
					http.Error(w, "no peer asks so", http.StatusBadRequest)
					return
				}
				if name == "503" {
					test.answer(w, "")
					return
				}
				instance, mac, body := test.answer(w, r.Header.Get(HeaderNonce))
				w.Header().Set(HeaderInstance, instance)
				w.Header().Set(HeaderMAC, mac)
				_, _ = w.Write(body)
			})
			cl := with(t, c, "auth-0", server.URL)
			var mu sync.Mutex
			var got []revoked.Page
			cl.Revocations(t.Context(), "log", 5, func(p revoked.Page) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, p)
			})
			if believed := len(got) == 1 && got[0].Head == 7; believed != test.believed || len(got) > 1 {
				t.Errorf("it took %+v", got)
			}
		})
	}
}
