package cluster

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/discovery"
	"github.com/watchword-auth/watchword/internal/problem"
)

// A doctor can tell somebody who does not have the cluster's secret from a replica that cannot
// answer.
func TestStrangers(t *testing.T) {
	other, err := newSecret(strings.Repeat("x", MinSecret))
	if err != nil {
		t.Fatal(err)
	}
	peer := with(t, &clock{}, "auth-1")
	for name, c := range map[string]struct {
		status   int
		body     string
		stranger bool
	}{
		"another secret":        {http.StatusForbidden, `{"code":"` + errNoReplica.Code + `"}`, true},
		"an answer of its own":  {http.StatusOK, `{"answer":""}`, true},
		"without a certificate": {http.StatusForbidden, `{"code":"certificate_needed"}`, false},
		"a proxy":               {http.StatusForbidden, "<html>", false},
		"no database":           {http.StatusServiceUnavailable, `{"code":"storage_unavailable"}`, false},
	} {
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		})
		asker := &Asker{other, func(string) *http.Client { return server.Client() }}
		_, _, err := asker.Examine(t.Context(), discovery.Peer{URL: server.URL}, []byte("{}"))
		if err == nil || IsStranger(err) != c.stranger {
			t.Errorf("%s: %v: a stranger: %v, want %v", name, err, IsStranger(err), c.stranger)
		}
	}
	if IsStranger(nil) || IsStranger(errors.New("refused")) {
		t.Error("nobody and no answer are strangers")
	}
	nonce := strings.Repeat("n", minNonce)
	_, _, _, err = peer.AnswerExamination(t.Context(), nonce, ExamineQuestion{other.examination(nonce).Seal([]byte("{}"), examinePlace)}, nil)
	if problem.From(err).Code != errNoReplica.Code {
		t.Errorf("a question under another secret: %v", err)
	}
}
