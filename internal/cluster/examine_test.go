package cluster

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/problem"
)

const (
	someQuestion = `{"write":"a question in the open"}`
	someAnswer   = `{"settings":{"a.setting":"in the open"}}`
)

// examined serves what a replica answers to doctors, and returns where, and all that went over the
// line.
func examined(t *testing.T, peer *Cluster, answer func(ctx context.Context, question []byte) ([]byte, error)) (at discovery.Peer, client func(string) *http.Client, line *bytes.Buffer) {
	t.Helper()
	line = &bytes.Buffer{}
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		line.Write(body)
		_ = r.Header.Write(line)
		var q ExamineQuestion
		if err := json.Unmarshal(body, &q); err != nil || r.Method != http.MethodPost || r.URL.Path != "/api/cluster/examine" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		said, instance, mac, err := peer.AnswerExamination(r.Context(), r.Header.Get(HeaderNonce), q, answer)
		if err != nil {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set(HeaderInstance, instance)
		w.Header().Set(HeaderMAC, mac)
		_ = w.Header().Write(line)
		line.Write(said)
		_, _ = w.Write(said)
	})
	return discovery.Peer{URL: server.URL}, func(string) *http.Client { return server.Client() }, line
}

// A doctor with the cluster's secret learns how a replica is, and nobody on the way learns anything.
func TestExamine(t *testing.T) {
	peer := with(t, &clock{}, "auth-1")
	failure := error(nil)
	at, client, line := examined(t, peer, func(_ context.Context, question []byte) ([]byte, error) {
		if string(question) != someQuestion {
			t.Errorf("asked %q", question)
		}
		return []byte(someAnswer), failure
	})
	doctor, err := NewAsker(peer.cfg.Secret, client)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		instance, answer, err := doctor.Examine(t.Context(), at, []byte(someQuestion))
		if err != nil || instance != "auth-1" || string(answer) != someAnswer {
			t.Errorf("%q, %q, %v", instance, answer, err)
		}
	}
	header := http.Header{"X-Forwarded-For": {"192.0.2.1"}}
	if _, _, err := doctor.ExamineThrough(t.Context(), client(""), at.URL, header, []byte(someQuestion)); err != nil || !strings.Contains(line.String(), "192.0.2.1") || len(header) != 1 {
		t.Errorf("through a load balancer: %v, %v", err, header)
	}
	stranger, err := NewAsker(strings.Repeat("x", MinSecret), client)
	if err != nil {
		t.Fatal(err)
	}
	if _, answer, err := stranger.Examine(t.Context(), at, []byte(someQuestion)); err == nil || answer != nil {
		t.Errorf("without the cluster's secret there is an answer: %q", answer)
	}
	failure = errors.New("it cannot say")
	if _, answer, err := doctor.Examine(t.Context(), at, []byte(someQuestion)); err == nil || answer != nil {
		t.Errorf("of a replica that fails: %q, %v", answer, err)
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(someAnswer))
	for _, secret := range []string{"in the open", "setting", encoded[:12], peer.cfg.Secret} {
		if strings.Contains(line.String(), secret) {
			t.Errorf("%q went over the line", secret)
		}
	}
}

// A replica does nothing for a question that no doctor of its cluster has put, or that it has answered.
func TestForgedExaminations(t *testing.T) {
	peer := with(t, &clock{}, "auth-1")
	other, err := newSecret(strings.Repeat("x", MinSecret))
	if err != nil {
		t.Fatal(err)
	}
	const nonce = "0123456789abcdef"
	good := peer.secret.examination(nonce).Seal([]byte(someQuestion), examinePlace)
	damaged := bytes.Clone(good)
	damaged[len(damaged)-1] ^= 1
	for _, c := range []struct {
		name   string
		nonce  string
		sealed []byte
		code   string
	}{
		{"nothing", nonce, nil, "not_a_replica"},
		{"in the open", nonce, []byte(someQuestion), "not_a_replica"},
		{"another secret", nonce, other.examination(nonce).Seal([]byte(someQuestion), examinePlace), "not_a_replica"},
		{"an answer of this replica", nonce, peer.secret.examination(nonce).Seal([]byte(someQuestion), examinedPlace), "not_a_replica"},
		{"about a token", nonce, peer.secret.question(nonce).Seal([]byte(someQuestion), tokenPlace), "not_a_replica"},
		{"under another nonce", "fedcba9876543210", good, "not_a_replica"},
		{"damaged", nonce, damaged, "not_a_replica"},
		{"a short nonce", "short", peer.secret.examination("short").Seal([]byte(someQuestion), examinePlace), "nonce_invalid"},
		{"a long nonce", strings.Repeat("n", maxNonce+1), good, "nonce_invalid"},
		{"a good one", nonce, good, ""}, // what was refused before has not spent its nonce
		{"the same again", nonce, good, "question_replayed"},
	} {
		asked := false
		body, _, mac, err := peer.AnswerExamination(t.Context(), c.nonce, ExamineQuestion{c.sealed}, func(context.Context, []byte) ([]byte, error) {
			asked = true
			return []byte(someAnswer), nil
		})
		if (err == nil) != (c.code == "") || err != nil && (problem.From(err).Code != c.code || problem.From(err).Kind == problem.Internal) {
			t.Errorf("%s: %v, want %q", c.name, err, c.code)
		}
		if asked != (c.code == "") || c.code != "" && (body != nil || mac != "") {
			t.Errorf("%s: asked %v, answered %q %q", c.name, asked, body, mac)
		}
	}
}

// Of many copies of one question at once, one is answered, also after others, and one that failed is
// not tried again.
func TestReplayedExaminations(t *testing.T) {
	peer := with(t, &clock{}, "auth-1")
	ask := func(nonce string, fails error) (answered bool) {
		sealed := peer.secret.examination(nonce).Seal([]byte(someQuestion), examinePlace)
		_, _, _, _ = peer.AnswerExamination(t.Context(), nonce, ExamineQuestion{sealed}, func(context.Context, []byte) ([]byte, error) {
			answered = true
			return nil, fails
		})
		return answered
	}
	const recorded = "a-nonce-that-was-recorded"
	var mu sync.Mutex
	times := 0
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if ask(recorded, errors.New("it cannot say")) {
				mu.Lock()
				times++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if times != 1 {
		t.Errorf("answered %d times", times)
	}
	for i := range maxExaminations - 1 {
		if !ask(fmt.Sprintf("question-number-%d", i), nil) {
			t.Fatalf("question %d is not answered", i)
		}
	}
	if ask(recorded, nil) {
		t.Errorf("it is answered again after %d others", maxExaminations-1)
	}
	if n := len(peer.examined.seen); n > maxExaminations+1 {
		t.Errorf("%d nonces are kept", n)
	}
}

// An answer is believed only if a replica of the cluster made it for this question.
func TestLyingReplicas(t *testing.T) {
	peer := with(t, &clock{}, "auth-1")
	other, err := newSecret(strings.Repeat("x", MinSecret))
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	answer := func(s *secret, nonce, place string) []byte {
		body, err := json.Marshal(ExamineAnswer{s.examination(nonce).Seal([]byte(someAnswer), place)})
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	own := peer.secret
	const old = "0123456789abcdef"
	for name, test := range map[string]struct {
		say      func(nonce string, question []byte) (body []byte, mac string)
		believed bool
	}{
		"honest": {func(nonce string, _ []byte) ([]byte, string) {
			body := answer(own, nonce, examinedPlace)
			return body, encode(own.examined(nonce, "auth-1", body))
		}, true},
		"no MAC": {func(nonce string, _ []byte) ([]byte, string) { return answer(own, nonce, examinedPlace), "" }, false},
		"what it wants": {func(string, []byte) ([]byte, string) {
			return []byte(someAnswer), encode(bytes.Repeat([]byte{1}, 32))
		}, false},
		"another secret": {func(nonce string, _ []byte) ([]byte, string) {
			body := answer(other, nonce, examinedPlace)
			return body, encode(other.examined(nonce, "auth-1", body))
		}, false},
		"in another's name": {func(nonce string, _ []byte) ([]byte, string) {
			body := answer(own, nonce, examinedPlace)
			return body, encode(own.examined(nonce, "auth-2", body))
		}, false},
		"for a token": {func(nonce string, _ []byte) ([]byte, string) {
			body := answer(own, nonce, examinedPlace)
			return body, encode(own.verdict(nonce, "auth-1", body))
		}, false},
		"an older answer": {func(string, []byte) ([]byte, string) {
			body := answer(own, old, examinedPlace)
			return body, encode(own.examined(old, "auth-1", body))
		}, false},
		"the question sent back": {func(nonce string, question []byte) ([]byte, string) {
			var q ExamineQuestion
			_ = json.Unmarshal(question, &q)
			body, _ := json.Marshal(ExamineAnswer(q))
			return body, encode(own.examined(nonce, "auth-1", body))
		}, false},
		"not sealed": {func(nonce string, _ []byte) ([]byte, string) {
			return []byte(someAnswer), encode(own.examined(nonce, "auth-1", []byte(someAnswer)))
		}, false},
		"without end": {func(nonce string, _ []byte) ([]byte, string) {
			body := bytes.Repeat([]byte(" "), maxExamined+1)
			return body, encode(own.examined(nonce, "auth-1", body))
		}, false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			question, _ := io.ReadAll(r.Body)
			body, mac := test.say(r.Header.Get(HeaderNonce), question)
			w.Header().Set(HeaderInstance, "auth-1")
			w.Header().Set(HeaderMAC, mac)
			_, _ = w.Write(body)
		}))
		_, said, err := (&Asker{own, func(string) *http.Client { return server.Client() }}).Examine(t.Context(), discovery.Peer{URL: server.URL}, []byte(someQuestion))
		server.Close()
		if (err == nil) != test.believed || (said != nil) != test.believed {
			t.Errorf("%s: %q, %v", name, said, err)
		}
	}
}

// Two replicas have the same digest of a secret setting only if it has the same text, and a digest
// tells nothing to who has another secret.
func TestSettingDigest(t *testing.T) {
	if _, err := SettingDigest("short"); err == nil {
		t.Error("a secret that is too short")
	}
	digests := map[string]string{}
	for _, secret := range []string{strings.Repeat("a", MinSecret), strings.Repeat("b", MinSecret)} {
		digest, err := SettingDigest(secret)
		if err != nil {
			t.Fatal(err)
		}
		again, err := SettingDigest(secret)
		if err != nil || digest("storage.key", "text") != again("storage.key", "text") {
			t.Errorf("two replicas differ: %v", err)
		}
		for _, setting := range []string{"storage.key", "tokens.secret"} {
			for _, text := range []string{"text", "other text"} {
				d := digest(setting, text)
				if digests[d] != "" || strings.Contains(d, text) {
					t.Errorf("%s of %s: %s, as of %s", setting, text, d, digests[d])
				}
				digests[d] = setting + text
			}
		}
	}
	// What a person chose is not told by an HMAC that costs nothing to try.
	secret := strings.Repeat("a", MinSecret)
	digest, err := SettingDigest(secret)
	if err != nil {
		t.Fatal(err)
	}
	under, err := hkdf.Key(sha256.New, []byte(secret), nil, purposePrefix+"setting", sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	for text, cheap := range map[string]bool{"hunter2": false, strings.Repeat("r", MinSecret): true} {
		is := digest("admin.password", text) == "hmac:"+base64.RawURLEncoding.EncodeToString(sum(under, "admin.password", text))
		if is != cheap {
			t.Errorf("%q: one HMAC tries it out: %v, want %v", text, is, cheap)
		}
	}
	var all sync.WaitGroup
	for i := range 2 * maxHashed {
		all.Go(func() { digest("admin.password", string(rune('a'+i%3))) })
	}
	all.Wait()
}

// Of an answer that is none, a doctor is told the status and the code of the problem, and nothing
// else that whoever answers has written.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		status    int
		body, say string
		none      bool
	}{
		{404, `{"code":"not_found"}`, "it answers 404 (not_found)", true},
		{404, "<html>", "it answers 404", true},
		{503, `{"code":"\u001b[31m rm -rf"}`, "it answers 503", false},
		{403, `{"code":"` + strings.Repeat("a", 51) + `"}`, "it answers 403", false},
	} {
		err := fmt.Errorf("asking: %w", refusalOf(c.status, []byte(c.body)))
		if err.Error() != "asking: "+c.say || HasNoAnswer(err) != c.none {
			t.Errorf("%d %s: %v, %v", c.status, c.body, err, HasNoAnswer(err))
		}
	}
	if HasNoAnswer(errors.New("it answers 404")) {
		t.Error("another error")
	}
}
