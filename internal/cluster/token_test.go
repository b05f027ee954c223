package cluster

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/problem"
)

const someToken = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"

// A replica and a command with the cluster's secret learn whether a peer accepts a token. On
// the way there is only what nobody else can read.
func TestAskingAboutAToken(t *testing.T) {
	c := &clock{}
	peer := with(t, c, "auth-1")
	accepted, failure := true, error(nil)
	var question []byte // the last one
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		question, _ = io.ReadAll(r.Body)
		var q TokenQuestion
		if err := json.Unmarshal(question, &q); err != nil || r.Method != http.MethodPost || r.URL.Path != "/api/cluster/verify" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		body, instance, mac, err := peer.AnswerToken(r.Header.Get(HeaderNonce), q, func(token string) (bool, error) {
			if token != someToken {
				t.Errorf("asked about %q", token)
			}
			return accepted, failure
		})
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set(HeaderInstance, instance)
		w.Header().Set(HeaderMAC, mac)
		_, _ = w.Write(body)
	})
	at := discovery.Peer{URL: server.URL}
	command, err := NewAsker(peer.cfg.Secret, func(string) *http.Client { return server.Client() })
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := NewAsker(strings.Repeat("x", MinSecret), func(string) *http.Client { return server.Client() })
	if err != nil {
		t.Fatal(err)
	}
	replica := with(t, c, "auth-0", server.URL)
	for _, accepted = range []bool{true, false} {
		if got, err := replica.Accepts(t.Context(), at, someToken); err != nil || got != accepted {
			t.Errorf("a replica: %v, %v, want %v", got, err, accepted)
		}
		if got, err := command.Accepts(t.Context(), at, someToken); err != nil || got != accepted {
			t.Errorf("a command: %v, %v, want %v", got, err, accepted)
		}
		var q TokenQuestion
		if err := json.Unmarshal(question, &q); err != nil || bytes.Contains(q.Sealed, []byte(someToken)) || bytes.Contains(question, []byte(someToken)) {
			t.Errorf("the token is in the question: %q, %v", question, err)
		}
		if _, err := stranger.Accepts(t.Context(), at, someToken); err == nil {
			t.Error("without the cluster's secret there is an answer")
		}
	}
	failure = errors.New("stale")
	if _, err := replica.Accepts(t.Context(), at, someToken); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a peer that does not know: %v", err)
	}
	if _, err := NewAsker("short", nil); err == nil {
		t.Error("a secret that is too short")
	}
}

// What a question is answered that no replica has asked, or that was asked before.
func TestQuestionsOfStrangers(t *testing.T) {
	peer := with(t, &clock{}, "auth-1")
	const nonce = "0123456789abcdef"
	sealed := func(nonce, place string) []byte { return peer.secret.question(nonce).Seal([]byte(someToken), place) }
	other, err := newSecret(strings.Repeat("x", MinSecret))
	if err != nil {
		t.Fatal(err)
	}
	damaged := sealed(nonce, tokenPlace)
	damaged[len(damaged)-1] ^= 1
	for name, c := range map[string]struct {
		nonce  string
		sealed []byte
		code   string
	}{
		"a replica's":          {nonce, sealed(nonce, tokenPlace), ""},
		"nothing":              {nonce, nil, "not_a_replica"},
		"the token itself":     {nonce, []byte(someToken), "not_a_replica"},
		"another secret":       {nonce, other.question(nonce).Seal([]byte(someToken), tokenPlace), "not_a_replica"},
		"another place":        {nonce, sealed(nonce, "elsewhere"), "not_a_replica"},
		"another question's":   {"fedcba9876543210", sealed(nonce, tokenPlace), "not_a_replica"},
		"damaged":              {nonce, damaged, "not_a_replica"},
		"a nonce that is none": {"short", sealed("short", tokenPlace), "nonce_invalid"},
	} {
		asked := false
		_, _, _, err := peer.AnswerToken(c.nonce, TokenQuestion{c.sealed}, func(string) (bool, error) { asked = true; return true, nil })
		if (err == nil) != (c.code == "") || err != nil && problem.From(err).Code != c.code {
			t.Errorf("%s: %v, want %q", name, err, c.code)
		}
		if c.code == "not_a_replica" && asked {
			t.Errorf("%s: the token was looked at", name)
		}
	}
}

// An answer about a token is believed only if a replica made it for this question.
func TestLyingVerdicts(t *testing.T) {
	peer := with(t, &clock{}, "auth-1")
	yes := []byte(`{"accepted":true}`)
	encode := base64.RawURLEncoding.EncodeToString
	var old string
	for name, test := range map[string]struct {
		mac      func(nonce string) string
		body     []byte
		believed bool
	}{
		"honest":            {func(nonce string) string { return encode(peer.secret.verdict(nonce, "auth-1", yes)) }, yes, true},
		"no MAC":            {func(string) string { return "" }, yes, false},
		"for keys":          {func(nonce string) string { return encode(peer.secret.answer(nonce, "auth-1", yes)) }, yes, false},
		"in another's name": {func(nonce string) string { return encode(peer.secret.verdict(nonce, "auth-2", yes)) }, yes, false},
		"another answer": {func(nonce string) string {
			return encode(peer.secret.verdict(nonce, "auth-1", []byte(`{"accepted":false}`)))
		}, yes, false},
		"another question": {func(string) string { return old }, yes, false},
		"without end": {func(nonce string) string {
			return encode(peer.secret.verdict(nonce, "auth-1", bytes.Repeat([]byte(" "), maxVerdict+1)))
		}, bytes.Repeat([]byte(" "), maxVerdict+1), false},
	} {
		old = encode(peer.secret.verdict("0123456789abcdef", "auth-1", yes))
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(HeaderInstance, "auth-1")
			w.Header().Set(HeaderMAC, test.mac(r.Header.Get(HeaderNonce)))
			_, _ = w.Write(test.body)
		}))
		got, err := (&Asker{peer.secret, func(string) *http.Client { return server.Client() }}).Accepts(t.Context(), discovery.Peer{URL: server.URL}, someToken)
		server.Close()
		if got != test.believed || (err == nil) != test.believed {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
