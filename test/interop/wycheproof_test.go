package interop

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// wycheproof is one file of cases.
type wycheproof struct {
	NumberOfTests int
	TestGroups    []struct {
		Comment string
		Public  json.RawMessage
		Private json.RawMessage // for HMAC, which has no other
		Tests   []struct {
			TcID    int
			Comment string
			JWS     string
			Result  string
		}
	}
}

func load(t *testing.T, name string) (w wycheproof) {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", "github.com/c2sp/wycheproof").Output()
	if err != nil {
		t.Fatal(err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(module.Dir, "testvectors_v1", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &w); err != nil {
		t.Fatal(err)
	}
	return w
}

// Why Watchword answers otherwise than the cases ask.
const (
	hmac     = "HMAC is refused by design: who can check such a token can make one"
	otherAlg = "the algorithm is not one of the six that a key may have"
	otherKey = "the key says another algorithm than the token; the key decides (RFC 8725 §3.1)"
	noAlg    = "the key's alg, ES521, does not exist (RFC 7518 §3.1 has ES512)"
)

// TestWycheproofSignatures puts each JWS to the step of the check that knows
// nothing of claims. Each case that is answered otherwise than it asks stands in
// the table; a difference that is not, or no longer is, fails.
func TestWycheproofSignatures(t *testing.T) {
	differs := map[int]string{
		1: hmac, 348: hmac, 352: hmac, 357: hmac, 358: hmac, 359: hmac, 372: hmac, 373: hmac, 376: hmac, 377: hmac,
		264: otherAlg, 265: otherAlg, 266: otherAlg, 267: otherAlg, // RS384
		268: otherAlg, 269: otherAlg, 270: otherAlg, 271: otherAlg, // RS512
		320: otherAlg, 321: otherAlg, 322: otherAlg, 323: otherAlg, // PS384
		325: otherAlg, 326: otherAlg, 327: otherAlg, 328: otherAlg, // PS512
		346: otherKey, 350: otherKey, 347: noAlg, 351: noAlg,
	}
	w := load(t, "json_web_signature_test.json")
	run(t, w, differs, func(key json.RawMessage, jws string) bool {
		k, err := accesstoken.ParseJWK(key)
		if err != nil {
			return false
		}
		_, err = k.VerifySignature(jws)
		return err == nil
	})
}

// TestWycheproofKeys does so with key sets.
func TestWycheproofKeys(t *testing.T) {
	differs := map[int]string{2: hmac, 13: hmac, 14: hmac, 15: hmac}
	w := load(t, "json_web_key_test.json")
	run(t, w, differs, func(set json.RawMessage, jws string) bool {
		s, err := accesstoken.ParseKeySet(set)
		if err != nil {
			return false
		}
		for _, k := range s.Keys() {
			if _, err := k.VerifySignature(jws); err == nil {
				return true
			}
		}
		return false
	})
}

func run(t *testing.T, w wycheproof, differs map[int]string, accepts func(key json.RawMessage, jws string) bool) {
	t.Helper()
	agree, total := 0, 0
	for _, group := range w.TestGroups {
		key := group.Public
		if key == nil {
			key = group.Private
		}
		for _, c := range group.Tests {
			total++
			accepted, reason := accepts(key, c.JWS), differs[c.TcID]
			switch {
			case accepted == (c.Result == "valid"):
				agree++
				if reason != "" {
					t.Errorf("%d %s: agrees, but the table says %q", c.TcID, c.Comment, reason)
				}
			case reason == "":
				t.Errorf("%d %s %s: accepted %v, and should be %s", c.TcID, group.Comment, c.Comment, accepted, c.Result)
			case accepted:
				t.Errorf("%d %s %s: accepted, and no reason makes that right", c.TcID, group.Comment, c.Comment)
			}
		}
	}
	if total != w.NumberOfTests {
		t.Errorf("%d cases ran of %d", total, w.NumberOfTests)
	}
	t.Logf("Wycheproof: %d of %d agree; the other %d are refused for a reason in the table", agree, total, total-agree)
}
