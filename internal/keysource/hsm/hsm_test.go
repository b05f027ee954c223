//go:build pkcs11 && cgo

package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/watchword-auth/watchword/internal/keysource"
	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/internal/token"
	"github.com/watchword-auth/watchword/verify/accesstoken"
)

// A probe counts what the library is asked, and answers in its place.
type probe struct {
	cryptoki
	logins, starts atomic.Int64
	flags          atomic.Uint64 // added to those of every token
	signs          atomic.Pointer[func() error]
}

func (p *probe) Initialize(o ...pkcs11.InitializeOption) error {
	p.starts.Add(1)
	return p.cryptoki.Initialize(o...)
}

func (p *probe) Login(s pkcs11.SessionHandle, user uint, pin string) error {
	p.logins.Add(1)
	return p.cryptoki.Login(s, user, pin)
}

func (p *probe) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	info, err := p.cryptoki.GetTokenInfo(slot)
	info.Flags |= uint(p.flags.Load())
	return info, err
}

func (p *probe) Sign(s pkcs11.SessionHandle, message []byte) ([]byte, error) {
	if f := p.signs.Load(); f != nil {
		if err := (*f)(); err != nil {
			return nil, err
		}
	}
	return p.cryptoki.Sign(s, message)
}

// library is the one that all tests use: a process loads each once.
var library = &probe{}

func TestMain(m *testing.M) {
	real := load
	load = func(path string) cryptoki {
		lib := real(path)
		if lib == nil {
			return nil
		}
		library.cryptoki = lib
		return library
	}
	if os.Getenv("HSM_TEST_SIGNS") != "" {
		os.Exit(anotherProcess())
	}
	os.Exit(m.Run())
}

// A rig is a SoftHSM with the token "signing", and what a Token of it is opened with.
type rig struct {
	*testenv.SoftHSM
	cfg Config
	pin atomic.Pointer[string]
	now atomic.Int64 // microseconds added to the time
	log *bytes.Buffer
}

func newRig(t testing.TB) *rig {
	t.Helper()
	library.flags.Store(0)
	library.signs.Store(nil)
	r := &rig{SoftHSM: testenv.StartSoftHSM(t, "signing"), log: new(bytes.Buffer)}
	r.pin.Store(&r.PIN)
	r.cfg = Config{
		Library: r.Library, Token: "signing", Key: "watchword", PIN: func() (string, error) { return *r.pin.Load(), nil },
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
		Now:    func() time.Time { return time.Now().Add(time.Duration(r.now.Load()) * time.Microsecond) },
	}
	return r
}

// later lets the pause between two attempts pass.
func (r *rig) later() { r.now.Add(pause.Microseconds()) }

func (r *rig) open(t testing.TB) Token {
	t.Helper()
	d, err := Open(t.Context(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func create(t testing.TB, d Token, algorithm string) keysource.Kept {
	t.Helper()
	k, err := d.Create(t.Context(), algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// expectSigns signs a token with a key, and has it verified as every resource server does.
func expectSigns(t testing.TB, algorithm string, k keysource.Kept) {
	t.Helper()
	s, err := token.NewSigner("kid", algorithm, k)
	if err != nil {
		t.Fatal(err)
	}
	if err := signs(s); err != nil {
		t.Error(err)
	}
}

func signs(s *token.Signer) error {
	now := time.Now()
	compact, err := s.Sign(token.Access{
		Issuer: "https://auth.example.com", Subject: "ada", Audience: []string{"api"}, ClientID: token.FirstParty,
		ID: "pO3s4rJt0Tqv7c1zQmZ2Yg", IssuedAt: now, NotBefore: now, ExpiresAt: now.Add(time.Minute), AuthTime: now,
	})
	if err != nil {
		return err
	}
	rules := accesstoken.Rules{Issuer: "https://auth.example.com", Audience: []string{"api"}}
	_, err = rules.Check(compact, now, func(string) (accesstoken.Key, error) { return s.Public(), nil })
	return err
}

// For each algorithm a key is made on the token, is found again, and makes tokens that are
// verified. pkcs11-tool sees the same key, and that it can do nothing else than sign and never
// leave.
func TestAlgorithms(t *testing.T) {
	r := newRig(t)
	d := r.open(t)
	for _, algorithm := range accesstoken.Algorithms() {
		t.Run(algorithm, func(t *testing.T) {
			k := create(t, d, algorithm)
			if !regexp.MustCompile(`^[0-9a-f]{32}$`).MatchString(k.Ref) {
				t.Errorf("the key is named %q", k.Ref)
			}
			for range 20 { // also those that begin with a zero, or are not canonical
				expectSigns(t, algorithm, k)
			}
			keys, err := r.open(t).Keys(t.Context(), algorithm)
			if err != nil {
				t.Fatal(err)
			}
			found := keys[len(keys)-1]
			if same, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool }); found.Ref != k.Ref || !ok || !same.Equal(found.Public()) {
				t.Errorf("made %s, found %s", k.Ref, found.Ref)
			}
			expectSigns(t, algorithm, found)
			var seen string
			for object := range strings.SplitSeq(r.Tool(t, "signing", "--list-objects", "--type", "privkey"), "Private Key Object") {
				if strings.Contains(object, "ID:         "+k.Ref) {
					seen = object
				}
			}
			for _, want := range []string{"label:      watchword", "Usage:      sign\n", "Access:     sensitive, always sensitive, never extractable"} {
				if strings.Count(seen, want) != 1 {
					t.Errorf("pkcs11-tool shows, without %q:\n%s", want, seen)
				}
			}
		})
	}
	if strings.Contains(r.log.String(), "level=WARN") {
		t.Errorf("the log: %s", r.log)
	}
}

// A key signs nothing by another kind of signature than its algorithm's.
func TestAnotherKindOfSignature(t *testing.T) {
	d := newRig(t).open(t)
	for _, algorithm := range []string{accesstoken.ES256, accesstoken.EdDSA, accesstoken.RS256} {
		create(t, d, algorithm)
	}
	digest := make([]byte, 32)
	for _, c := range []struct {
		algorithm string
		digest    []byte
		opts      crypto.SignerOpts
	}{
		{accesstoken.ES256, digest, crypto.SHA384},
		{accesstoken.ES256, digest[1:], crypto.SHA256},
		{accesstoken.EdDSA, digest, crypto.SHA256},
		{accesstoken.RS256, digest, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 32}},
		{accesstoken.PS256, digest, crypto.SHA256}, // with the key of RS256
		{accesstoken.PS256, digest, &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 20}},
	} {
		keys, err := d.Keys(t.Context(), c.algorithm)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keys[0].Sign(nil, c.digest, c.opts); err == nil || errors.Is(err, keysource.ErrKeeperAway) {
			t.Errorf("%s: %v", c.algorithm, err)
		}
		expectSigns(t, c.algorithm, keys[0])
	}
}

// Keys stand in the order in which they were made, after those that another program has made.
func TestOrder(t *testing.T) {
	r := newRig(t)
	d := r.open(t)
	first := create(t, d, accesstoken.ES256)
	time.Sleep(2 * time.Millisecond) // an id begins with the millisecond
	second := create(t, d, accesstoken.ES256)
	r.Tool(t, "signing", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "watchword", "--id", "ff", "--usage-sign")
	r.Tool(t, "signing", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "another", "--id", "01", "--usage-sign")
	keys, err := d.Keys(t.Context(), accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range keys {
		got = append(got, k.Ref)
		expectSigns(t, accesstoken.ES256, k)
	}
	if want := []string{"ff", first.Ref, second.Ref}; strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the keys are %v, want %v", got, want)
	}
	if err := d.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// Many goroutines sign at once, with more of them than sessions.
func TestParallel(t *testing.T) {
	r := newRig(t)
	r.cfg.Sessions = 4
	d := r.open(t)
	s, err := token.NewSigner("kid", accesstoken.ES256, create(t, d, accesstoken.ES256))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var most, now atomic.Int64
	sign := func() error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(time.Millisecond)
		return nil
	}
	library.signs.Store(&sign)
	for range 16 {
		wg.Go(func() {
			for range 20 {
				if err := signs(s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() != 4 {
		t.Errorf("%d signatures at once at most, want 4", most.Load())
	}
}

// Each thing that is missing or ambiguous is named in one sentence.
func TestErrors(t *testing.T) {
	r := newRig(t)
	text := r.Dir + "/text.so"
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.Init(t, "twice")
	r.Init(t, "twice")
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no library":      {func(c *Config) { c.Library = "/nowhere/lib.so" }, "there is no PKCS #11 library /nowhere/lib.so: set CRYPTOKI_LIB"},
		"not a library":   {func(c *Config) { c.Library = text }, "cannot be loaded"},
		"no token":        {func(c *Config) { c.Token = "other" }, `has no token with the label "other", only`},
		"another serial":  {func(c *Config) { c.Serial = "77" }, `has no token with the label "signing" and the serial number 77, only`},
		"two of a label":  {func(c *Config) { c.Token = "twice" }, `has 2 tokens with the label "twice": name one by tokens.pkcs11.serial`},
		"three of any":    {func(c *Config) { c.Token = "" }, "has 3 tokens of any name"},
		"no PIN":          {func(c *Config) { c.PIN = func() (string, error) { return "", nil } }, "set PKCS11_PIN"},
		"unreadable PIN":  {func(c *Config) { c.PIN = func() (string, error) { return "", errors.New("no such file") } }, "no such file"},
		"a wrong PIN":     {func(c *Config) { c.PIN = func() (string, error) { return "not-the-pin", nil } }, `the token "signing" refuses the PIN`},
		"too short a PIN": {func(c *Config) { c.PIN = func() (string, error) { return "1", nil } }, `the token "signing" refuses the PIN`},
	} {
		cfg := r.cfg
		c.change(&cfg)
		d, err := Open(t.Context(), cfg)
		if err == nil {
			_ = d.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "not-the-pin") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}

	d := r.open(t)
	expect := func(algorithm, want string) {
		t.Helper()
		if keys, err := d.Keys(t.Context(), algorithm); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%d keys, %v, want %q", len(keys), err, want)
		}
	}
	expect(accesstoken.ES256, `there is no key with the label "watchword" for ES256 on the token "signing": make one with "watchword keys create --pkcs11"`)
	if _, err := d.Keys(t.Context(), accesstoken.ES256); !errors.Is(err, keysource.ErrGone) {
		t.Errorf("%v, want ErrGone", err)
	}
	expect("HS256", `no keys for the algorithm "HS256"`)
	create(t, d, accesstoken.RS256)
	expect(accesstoken.ES256, "only for RS256 and PS256: set tokens.algorithm")
	signsNothing(t, d.(*device), accesstoken.ES384)
	expect(accesstoken.ES384, "is not for signatures")
	r.Tool(t, "signing", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "watchword", "--id", "02", "--usage-sign")
	r.Tool(t, "signing", "--delete-object", "--type", "pubkey", "--id", "02")
	expect(accesstoken.ES256, "has 0 public halves")
	r.Tool(t, "signing", "--keypairgen", "--key-type", "EC:secp521r1", "--label", "watchword", "--id", "03", "--usage-sign")
	r.Tool(t, "signing", "--keypairgen", "--key-type", "EC:secp521r1", "--label", "watchword", "--id", "03", "--usage-sign")
	expect(accesstoken.ES512, "no key with the label")
	// The public half of another key.
	r.Tool(t, "signing", "--keypairgen", "--key-type", "EC:edwards25519", "--label", "watchword", "--id", "04", "--usage-sign")
	r.Tool(t, "signing", "--keypairgen", "--key-type", "EC:edwards25519", "--label", "watchword", "--id", "05", "--usage-sign")
	for _, args := range [][]string{{"--delete-object", "--type", "pubkey", "--id", "04"}, {"--delete-object", "--type", "privkey", "--id", "05"}} {
		r.Tool(t, "signing", args...)
	}
	r.Tool(t, "signing", "--set-id", "04", "--type", "pubkey", "--id", "05")
	expect(accesstoken.EdDSA, "its public half does not belong to its private half")
}

// signsNothing makes a key that is not for signatures.
func signsNothing(t testing.TB, d *device, algorithm string) {
	t.Helper()
	a, err := algorithmOf(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	both := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, "watchword"), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{1})}
	c, err := d.connection(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := library.OpenSession(c.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = library.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(a.generate, nil)}, slices.Concat(both, a.pairs()[0]), append(both, pkcs11.NewAttribute(pkcs11.CKA_SIGN, false)))
	if err != nil {
		t.Fatal(err)
	}
	if err := library.CloseSession(s); err != nil {
		t.Fatal(err)
	}
}

// A PIN that the token refuses is tried once, until it is another one.
func TestWrongPIN(t *testing.T) {
	r := newRig(t)
	d := r.open(t)
	k := create(t, d, accesstoken.ES256)
	wrong := "not-the-pin"
	r.pin.Store(&wrong)
	broken := func() error { return pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN) }
	library.signs.Store(&broken)
	if err := d.Ping(t.Context()); !errors.Is(err, keysource.ErrKeeperAway) {
		t.Errorf("not logged in: %v", err)
	}
	library.signs.Store(nil)
	before := library.logins.Load()
	for range 20 {
		r.later()
		if _, err := k.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, keysource.ErrKeeperAway) || !strings.Contains(err.Error(), "refuses the PIN") {
			t.Errorf("with a wrong PIN: %v", err)
		}
	}
	// The login that lost the key was the one attempt.
	if n := library.logins.Load() - before; n != 0 {
		t.Errorf("the wrong PIN was tried %d more times", n)
	}
	r.pin.Store(&r.PIN)
	r.later()
	expectSigns(t, accesstoken.ES256, k)
	if strings.Contains(r.log.String(), wrong) || strings.Contains(r.log.String(), r.PIN) {
		t.Errorf("a PIN is in the log: %s", r.log)
	}
}

// Before the last attempt that a token allows, none is made.
func TestFinalTry(t *testing.T) {
	r := newRig(t)
	for flag, want := range map[uint64]string{pkcs11.CKF_USER_PIN_FINAL_TRY: "would lock the token", pkcs11.CKF_USER_PIN_LOCKED: "is locked"} {
		before := library.logins.Load()
		library.flags.Store(flag)
		if _, err := Open(t.Context(), r.cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if library.logins.Load() != before {
			t.Errorf("%q, and the PIN was tried", want)
		}
	}
}

// While the token is away, nothing signs; when it is back, the same key does.
func TestTokenGoneAndBack(t *testing.T) {
	r := newRig(t)
	d, other := r.open(t), r.open(t) // two replicas in one process
	k := create(t, d, accesstoken.ES256)
	keys, err := other.Keys(t.Context(), accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		if err := os.Rename(r.Dir, r.Dir+"-away"); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			for _, k := range []keysource.Kept{k, keys[0]} {
				if _, err := k.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, keysource.ErrKeeperAway) {
					t.Errorf("round %d.%d, the token is away: %v", round, i, err)
				}
			}
			if err := d.Ping(t.Context()); !errors.Is(err, keysource.ErrKeeperAway) {
				t.Errorf("round %d.%d, the token is away: ping: %v", round, i, err)
			}
			if _, err := d.Keys(t.Context(), accesstoken.ES256); !errors.Is(err, keysource.ErrKeeperAway) {
				t.Errorf("round %d.%d, the token is away: keys: %v", round, i, err)
			}
			if i > 0 {
				r.later()
			}
		}
		if err := os.Rename(r.Dir+"-away", r.Dir); err != nil {
			t.Fatal(err)
		}
		r.later()
		expectSigns(t, accesstoken.ES256, k)
		expectSigns(t, accesstoken.ES256, keys[0])
		if err := d.Ping(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Whatever the library says when it has lost a session, goroutines that sign meanwhile get a
// signature, or ErrKeeperAway.
func TestLostSessions(t *testing.T) {
	r := newRig(t)
	d := r.open(t)
	k := create(t, d, accesstoken.ES256)
	for _, lost := range []uint{
		pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_TOKEN_NOT_PRESENT,
		pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, pkcs11.CKR_GENERAL_ERROR, 0x80000001,
	} {
		var once atomic.Bool
		fails := func() error {
			if once.CompareAndSwap(false, true) {
				return pkcs11.Error(lost)
			}
			return nil
		}
		r.later()
		library.signs.Store(&fails)
		before := library.starts.Load()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 5 {
					if _, err := k.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil {
						t.Errorf("%v: %v", pkcs11.Error(lost), err)
					}
				}
			})
		}
		wg.Wait()
		if n := library.starts.Load() - before; n != 1 {
			t.Errorf("%v: the library was started %d times", pkcs11.Error(lost), n)
		}
	}
	// Somebody else in the process has ended the library.
	r.later()
	if err := library.Finalize(); err != nil {
		t.Fatal(err)
	}
	expectSigns(t, accesstoken.ES256, k)
}

// An error that lasts starts the library once in the pause, however many sign.
func TestNoStormOfStarts(t *testing.T) {
	r := newRig(t)
	k := create(t, r.open(t), accesstoken.ES256)
	fails := func() error { return pkcs11.Error(pkcs11.CKR_DEVICE_ERROR) }
	library.signs.Store(&fails)
	before, now := library.starts.Load(), time.Now()
	r.cfg.Now = nil
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if _, err := k.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, keysource.ErrKeeperAway) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n, most := library.starts.Load()-before, int64(time.Since(now)/pause)+1; n > most {
		t.Errorf("the library was started %d times, want %d at most", n, most)
	}
}

// When every session hangs, a signature is refused after a while instead of hanging too.
func TestHangs(t *testing.T) {
	r := newRig(t)
	r.cfg.Sessions = 1
	d := r.open(t)
	k := create(t, d, accesstoken.ES256)
	hangs, go_ := make(chan struct{}), make(chan struct{})
	hang := func() error { close(hangs); <-go_; return nil }
	library.signs.Store(&hang)
	done := make(chan error)
	go func() {
		_, err := k.Sign(nil, make([]byte, 32), crypto.SHA256)
		done <- err
	}()
	<-hangs
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := d.Ping(ctx); !errors.Is(err, keysource.ErrKeeperAway) {
		t.Errorf("every session hangs: %v", err)
	}
	library.signs.Store(nil)
	close(go_)
	if err := <-done; err != nil {
		t.Error(err)
	}
	expectSigns(t, accesstoken.ES256, k)
}

// After Close nothing signs, and another Token of the process still does.
func TestClose(t *testing.T) {
	r := newRig(t)
	one, two := r.open(t), r.open(t)
	k := create(t, one, accesstoken.ES256)
	keys, err := two.Keys(t.Context(), accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	three, err := Open(t.Context(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	closed, err := three.Keys(t.Context(), accesstoken.ES256)
	if err != nil {
		t.Fatal(err)
	}
	if err := three.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := closed[0].Signer.(*key).prove(ctx); !errors.Is(err, keysource.ErrKeeperAway) {
		t.Errorf("after Close: %v", err)
	}
	expectSigns(t, accesstoken.ES256, k)
	expectSigns(t, accesstoken.ES256, keys[0])
}

// Several processes use one token at once; each finds the keys that another one makes.
func TestProcesses(t *testing.T) {
	r := newRig(t)
	d := r.open(t)
	k := create(t, d, accesstoken.ES256)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), "HSM_TEST_SIGNS="+r.Library, "HSM_TEST_PIN="+r.PIN)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "found "+k.Ref) {
				t.Errorf("another process: %v\n%s", err, out)
			}
		})
	}
	for range 20 {
		expectSigns(t, accesstoken.ES256, k)
	}
	wg.Wait()
	keys, err := d.Keys(t.Context(), accesstoken.ES256)
	if err != nil || len(keys) != 4 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for _, k := range keys {
		expectSigns(t, accesstoken.ES256, k)
	}
}

// anotherProcess finds a key, signs with it and makes one more.
func anotherProcess() int {
	ctx := context.Background()
	d, err := Open(ctx, Config{Library: os.Getenv("HSM_TEST_SIGNS"), Token: "signing", Key: "watchword", PIN: func() (string, error) { return os.Getenv("HSM_TEST_PIN"), nil }})
	if err == nil {
		var keys []keysource.Kept
		keys, err = d.Keys(ctx, accesstoken.ES256)
		for range 20 {
			if err == nil {
				fmt.Println("found", keys[0].Ref)
				var s *token.Signer
				if s, err = token.NewSigner("kid", accesstoken.ES256, keys[0]); err == nil {
					err = signs(s)
				}
			}
		}
	}
	if err == nil {
		_, err = d.Create(ctx, accesstoken.ES256)
	}
	if err == nil {
		err = d.Close()
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}
