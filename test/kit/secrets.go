package kit

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/config"
)

// leastSecret is how many characters a secret has for which logs are searched: words of fewer
// may be in an entry by chance.
const leastSecret = 12

// secrets are those that the tests of this process have used.
var secrets struct {
	mu    sync.Mutex
	words map[string]bool // of letters, digits and "-_", as tokens are
	texts map[string]bool // others
}

func init() { Secret(Password, ClusterSecret) }

// Secret says that no log may have the texts in it.
func Secret(texts ...string) {
	secrets.mu.Lock()
	defer secrets.mu.Unlock()
	if secrets.words == nil {
		secrets.words, secrets.texts = map[string]bool{}, map[string]bool{}
	}
	for _, text := range texts {
		if parts := strings.Split(text, "."); len(parts) == 3 {
			text = parts[2] // the signature of a token, which is of no use without it
		}
		switch {
		case len(text) < leastSecret || uuid.Validate(text) == nil: // an id, which some tests send in a token's place
		case strings.ContainsFunc(text, isBetweenWords):
			secrets.texts[text] = true
		default:
			secrets.words[text] = true
		}
	}
}

// SecretsOf is Secret for the settings of a configuration.
func SecretsOf(cfg *config.Config) {
	for _, s := range config.Settings() {
		if s.Secret == "all" || s.Secret == "end" {
			for one := range strings.SplitSeq(s.Format(cfg), ",") {
				one, _, _ = strings.Cut(one, "@")
				Secret(one)
			}
		}
	}
}

// isBetweenWords reports whether a character is none of a token.
func isBetweenWords(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
}

// KeepsSecrets fails a test if the log of one of its replicas has a secret in it. It costs one
// look for each word of the log, however many secrets there are.
func KeepsSecrets(t testing.TB, log string) {
	t.Helper()
	secrets.mu.Lock()
	defer secrets.mu.Unlock()
	found := func(secret string) {
		at := strings.Index(log, secret)
		begin := strings.LastIndexByte(log[:at], '\n') + 1
		entry, _, _ := strings.Cut(log[begin:], "\n")
		t.Errorf("the log has the secret %s: %s", secret, entry)
	}
	for text := range secrets.texts {
		if strings.Contains(log, text) {
			found(text)
		}
	}
	for word := range strings.FieldsFuncSeq(log, isBetweenWords) {
		if len(word) >= leastSecret && secrets.words[word] {
			found(word)
			return // it may be in a thousand entries
		}
	}
}

// members are those of JSON whose values are secrets.
var members = []string{
	"access_token", "refresh_token", "mfa_token", "device_token", "token", "enrolment_token", "recovery_token",
	"password", "current_password", "new_password", "secret", "codes", "backup_codes",
}

// learnRequest takes the secrets out of a request.
func learnRequest(r *http.Request) {
	if _, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok {
		Secret(token)
	}
	for _, c := range r.Cookies() {
		Secret(c.Value)
	}
	if r.GetBody == nil || r.ContentLength > 64<<10 {
		return
	}
	if body, err := r.GetBody(); err == nil {
		var b bytes.Buffer
		_, _ = b.ReadFrom(body) // of a string, in memory
		learnJSON(b.Bytes())
	}
}

// learnAnswer takes the secrets out of an answer.
func learnAnswer(a Answer) {
	for _, c := range (&http.Response{Header: a.Header}).Cookies() {
		Secret(c.Value)
	}
	learnJSON(a.Body)
}

func learnJSON(body []byte) {
	if len(body) > 64<<10 || !bytes.HasPrefix(body, []byte("{")) {
		return
	}
	var m map[string]any
	if json.Unmarshal(body, &m) != nil {
		return
	}
	for name, value := range m {
		if !slices.Contains(members, name) {
			continue
		}
		switch v := value.(type) {
		case string:
			Secret(v)
		case []any:
			for _, one := range v {
				if text, ok := one.(string); ok {
					Secret(text)
				}
			}
		}
	}
}
