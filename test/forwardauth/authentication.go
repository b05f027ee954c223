package forwardauth

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RunOlder holds a proxy whose configuration knows nothing of X-Auth-Time and X-Auth-Methods to
// what it was held to before, and to passing on neither of a client.
func RunOlder(t *testing.T, start Start) {
	p := prepare(t, start)
	p.older = true
	t.Run("members", p.members)
	t.Run("forged", p.forged)
}

// methodsOf returns the amr of a token, as X-Auth-Methods has it.
func methodsOf(t *testing.T, compact string) string {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(compact, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		AMR []string `json:"amr"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	return strings.Join(claims.AMR, " ")
}

// wantAuthentication fails unless the headers say when and how the tester authenticated, which
// was just now. A header without a value need not arrive.
func (p *proxied) wantAuthentication(t *testing.T, h http.Header) {
	t.Helper()
	at, methods := h.Values("X-Auth-Time"), h.Values("X-Auth-Methods")
	if p.older {
		if len(at) > 0 || len(methods) > 0 {
			t.Errorf("X-Auth-Time %q and X-Auth-Methods %q arrive", at, methods)
		}
		return
	}
	if strings.Join(methods, ",") != p.methods {
		t.Errorf("X-Auth-Methods %q arrives, want %q", methods, p.methods)
	}
	if len(at) != 1 {
		t.Errorf("X-Auth-Time %q arrives", at)
		return
	}
	seconds, err := strconv.ParseInt(at[0], 10, 64)
	if age := time.Since(time.Unix(seconds, 0)); err != nil || age < -time.Minute || age > 10*time.Minute {
		t.Errorf("X-Auth-Time %q arrives at %d", at, time.Now().Unix())
	}
}
