package remote_test

import (
	"crypto"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/keysource/remote"
	"github.com/watchword-auth/watchword/internal/keysource/remote/remotetest"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// transitTypes are the types that are made for an algorithm in the tests.
var transitTypes = map[string]string{
	accesstoken.ES256: "ecdsa-p256", accesstoken.ES384: "ecdsa-p384", accesstoken.ES512: "ecdsa-p521",
	accesstoken.RS256: "rsa-2048", accesstoken.PS256: "rsa-2048", accesstoken.EdDSA: "ed25519",
}

// A subject is a signer under test, with what its operator does.
type subject struct {
	config  func(algorithm string) remote.Config
	more    func(algorithm string) // makes a further key
	process interface {
		Kill()
		Start()
	}
	again func() // what an operator does after Start, so that the signer has a key for ES256
}

func subjects(t *testing.T) map[string]subject {
	made := map[string]subject{}
	for name, mutual := range map[string]bool{"http": false, "https": true} {
		s := remotetest.StartSigner(t, mutual, accesstoken.Algorithms()...)
		made[name] = subject{
			config:  func(string) remote.Config { return s.Config() },
			more:    func(algorithm string) { s.AddKey(t, "2-"+strings.ToLower(algorithm), algorithm) },
			process: s, again: func() {},
		}
	}
	v := remotetest.StartVault(t)
	write := func(path string, values map[string]any) {
		t.Helper()
		if err := v.Write(path, values); err != nil {
			t.Fatal(err)
		}
	}
	for algorithm, kind := range transitTypes {
		write("transit/keys/key-"+algorithm, map[string]any{"type": kind})
	}
	made["transit"] = subject{
		config:  func(algorithm string) remote.Config { return v.Config("key-" + algorithm) },
		more:    func(algorithm string) { write("transit/keys/key-"+algorithm+"/rotate", map[string]any{}) },
		process: v, again: func() { write("transit/keys/key-ES256", map[string]any{"type": "ecdsa-p256"}) },
	}
	return made
}

func keeper(t testing.TB, cfg remote.Config) *remote.Keeper {
	t.Helper()
	cfg.Timeout = 10 * time.Second // of a busy machine
	k, err := remote.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// keys returns the keys for an algorithm, of which there are so many.
func keys(t testing.TB, k *remote.Keeper, algorithm string, want int) []keysource.Kept {
	t.Helper()
	kept, err := k.Keys(t.Context(), algorithm)
	if err != nil {
		t.Fatal(err)
	}
	if len(kept) != want {
		t.Fatalf("%d keys for %s, want %d", len(kept), algorithm, want)
	}
	return kept
}

// signs fails the test unless tokens of the key are good.
func signs(t testing.TB, kept keysource.Kept, algorithm string) {
	t.Helper()
	signer, err := token.NewSigner("kid", algorithm, kept)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	compact, err := signer.Sign(token.Access{
		Issuer: "https://auth.example.com", Audience: []string{"https://auth.example.com"}, Subject: "1", ID: "j", SessionID: "s", ClientID: "c",
		IssuedAt: now, ExpiresAt: now.Add(time.Minute),
	})
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := signer.Public().VerifySignature(compact); err != nil {
		t.Error(err)
	}
}

// Each kind of signer signs tokens for each algorithm, by many callers at once, and a further
// key comes after those that there were.
func TestConformance(t *testing.T) {
	for name, s := range subjects(t) {
		t.Run(name, func(t *testing.T) {
			for _, algorithm := range accesstoken.Algorithms() {
				k := keeper(t, s.config(algorithm))
				first := keys(t, k, algorithm, 1)[0]
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() { signs(t, first, algorithm) })
				}
				wg.Wait()
				if err := k.Ping(t.Context()); err != nil {
					t.Error(algorithm, err)
				}
				// A key signs by its one algorithm.
				if _, err := first.Sign(nil, make([]byte, 28), crypto.SHA224); err == nil || errors.Is(err, keysource.ErrKeeperAway) {
					t.Errorf("%s: another hash: %v", algorithm, err)
				}

				s.more(algorithm)
				both := keys(t, k, algorithm, 2)
				if both[0].Ref != first.Ref || both[1].Ref == first.Ref {
					t.Errorf("%s: %s, and then %s and %s", algorithm, first.Ref, both[0].Ref, both[1].Ref)
				}
				for _, kept := range both {
					if len(kept.Ref) > 200 || strings.ContainsFunc(kept.Ref, func(r rune) bool { return r <= ' ' || r > '~' }) {
						t.Errorf("the Ref %q", kept.Ref)
					}
					signs(t, kept, algorithm)
				}
			}
			if _, err := keeper(t, s.config(accesstoken.ES256)).Keys(t.Context(), "HS256"); err == nil {
				t.Error("a key for HS256")
			}
			away(t, s)
		})
	}
}

// away kills the signer and starts it again.
func away(t *testing.T, s subject) {
	t.Helper()
	k := keeper(t, s.config(accesstoken.ES256))
	old := keys(t, k, accesstoken.ES256, 2)[0]
	signs(t, old, accesstoken.ES256) // there is an idle connection, which breaks
	s.process.Kill()
	if _, err := old.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, keysource.ErrKeeperAway) {
		t.Errorf("Sign while the signer is away: %v", err)
	}
	if _, err := k.Keys(t.Context(), accesstoken.ES256); !errors.Is(err, keysource.ErrKeeperAway) {
		t.Errorf("Keys while the signer is away: %v", err)
	}
	if err := k.Ping(t.Context()); !errors.Is(err, keysource.ErrKeeperAway) {
		t.Errorf("Ping while the signer is away: %v", err)
	}
	s.process.Start()
	s.again()
	now, err := k.Keys(t.Context(), accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	signs(t, now[0], accesstoken.ES256)
	if err := k.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// The transit engine of Vault has more to say than the contract.
func TestTransit(t *testing.T) {
	v := remotetest.StartVault(t)
	write := func(path string, values map[string]any) {
		t.Helper()
		if err := v.Write(path, values); err != nil {
			t.Fatal(err)
		}
	}
	write("transit/keys/ec", map[string]any{"type": "ecdsa-p256"})
	write("transit/keys/ec/rotate", nil)
	write("transit/keys/ec/rotate", nil)
	write("transit/keys/rsa", map[string]any{"type": "rsa-3072"})
	write("transit/keys/aes", map[string]any{"type": "aes256-gcm96"})
	write("transit/keys/derived", map[string]any{"type": "ed25519", "derived": true})

	k := keeper(t, v.Config("ec,rsa"))
	all := keys(t, k, accesstoken.ES256, 3)
	one := keys(t, k, accesstoken.RS256, 1)[0]
	signs(t, one, accesstoken.RS256)
	signs(t, keys(t, k, accesstoken.PS256, 1)[0], accesstoken.PS256)
	if err := k.Ping(t.Context()); err != nil {
		t.Error(err)
	}

	// A version that may not sign any more is not offered, and says so. Vault's answer is 500,
	// like that of a Vault in trouble.
	write("transit/keys/ec/config", map[string]any{"min_encryption_version": 2})
	if left := keys(t, k, accesstoken.ES256, 2); left[0].Ref != all[1].Ref || left[1].Ref != all[2].Ref {
		t.Errorf("left are %s and %s", left[0].Ref, left[1].Ref)
	}
	_, err := all[0].Sign(nil, make([]byte, 32), crypto.SHA256)
	says(t, err, "500: requested version for signing is less than the minimum encryption key version", true)
	// Nor is one that has been archived.
	write("transit/keys/ec/config", map[string]any{"min_encryption_version": 3, "min_decryption_version": 3})
	if left := keys(t, k, accesstoken.ES256, 1); left[0].Ref != all[2].Ref {
		t.Errorf("left is %s", left[0].Ref)
	}

	// Another key under the same name is another key.
	write("transit/keys/ec/config", map[string]any{"deletion_allowed": true})
	if err := v.Delete("transit/keys/ec"); err != nil {
		t.Fatal(err)
	}
	_, err = k.Keys(t.Context(), accesstoken.ES256)
	says(t, err, "there is no transit key ec under transit: make one", false)
	_, err = all[2].Sign(nil, make([]byte, 32), crypto.SHA256)
	says(t, err, "signing key not found", false)
	write("transit/keys/ec", map[string]any{"type": "ecdsa-p256"})
	write("transit/keys/ec/rotate", nil)
	write("transit/keys/ec/rotate", nil)
	if made := keys(t, k, accesstoken.ES256, 3)[2]; made.Ref == all[2].Ref {
		t.Errorf("two keys are named %s", made.Ref)
	}
	_, err = all[2].Sign(nil, make([]byte, 32), crypto.SHA256)
	says(t, err, "a signature that its public key does not verify", false)

	for _, c := range []struct {
		keys, algorithm, says string
	}{
		{"none", accesstoken.ES256, "there is no transit key none under transit: make one"},
		{"ec", accesstoken.RS256, `wants the type rsa-2048 or rsa-3072 or rsa-4096: ec is of the type "ecdsa-p256"`},
		{"aes", accesstoken.ES256, `aes is of the type "aes256-gcm96"`},
		{"derived", accesstoken.EdDSA, "is derived"},
	} {
		_, err := keeper(t, v.Config(c.keys)).Keys(t.Context(), c.algorithm)
		says(t, err, c.says, false)
	}
	wrong := v.Config("ec")
	wrong.Mount = "team/transit"
	_, err = keeper(t, wrong).Keys(t.Context(), accesstoken.ES256)
	says(t, err, "there is no transit key ec under team/transit", false)

	// The token is read for each request.
	renewed := v.Config("ec")
	good, current := renewed.Token, "s.expired"
	renewed.Token = func() (string, error) {
		if current != "" {
			return current, nil
		}
		return good()
	}
	r := keeper(t, renewed)
	_, err = r.Keys(t.Context(), accesstoken.ES256)
	says(t, err, "its token or certificate is missing, has expired, or lacks the right, and it answers 403: permission denied", false)
	current = ""
	kept := keys(t, r, accesstoken.ES256, 3)[0]
	signs(t, kept, accesstoken.ES256)

	write("sys/seal", nil)
	_, err = kept.Sign(nil, make([]byte, 32), crypto.SHA256)
	says(t, err, "503: Vault is sealed", true)
	says(t, r.Ping(t.Context()), "503: Vault is sealed", true)
	write("sys/unseal", nil)
	signs(t, kept, accesstoken.ES256)
}

// says fails the test unless the error has this text, and may pass or not. It never has the
// token.
func says(t testing.TB, err error, text string, mayPass bool) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) || errors.Is(err, keysource.ErrKeeperAway) != mayPass {
		t.Errorf("%v; it should say %q; may pass: %v", err, text, mayPass)
	}
	if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), remotetest.Token) {
		t.Errorf("the token is in %v", err)
	}
}
