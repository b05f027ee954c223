package directory

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/password"
	"github.com/watchword-auth/watchword/internal/store"
)

func TestAuthenticate(t *testing.T) {
	w := newWorld(t)
	alice := w.user("Alice", "log=r")
	for _, name := range []string{"alice", "ALICE", "ａｌｉｃｅ"} {
		u, err := w.Authenticate(t.Context(), name, secret)
		if err != nil || u.ID != alice.ID || u.Username != "Alice" || u.PasswordHash != "" {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
}

// Whatever it was, the answer is the same.
func TestRefusalsAreAllAlike(t *testing.T) {
	w := newWorld(t)
	w.user("alice")
	for _, n := range []NewUser{{Username: "disabled", Password: secret, Disabled: true}, {Username: "machine"}} {
		if _, err := w.CreateUser(t.Context(), System(), n); err != nil {
			t.Fatal(err)
		}
	}
	broken := w.user("broken")
	stored := w.stored(broken)
	stored.PasswordHash = "$argon2id$v=19$m=4194304,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if err := w.Store.UpdateUser(t.Context(), stored); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, password string }{
		{"alice", "wrong password"}, {"alice", ""}, {"alice", secret + " "}, {"alice", strings.ToUpper(secret)},
		{"alice", strings.Repeat("x", 1<<20)}, {"alice", "\xff"}, {"alice", "nul\x00"},
		{"nobody", secret}, {"", secret}, {"two words", secret}, {"\x00", secret}, {"\xff", secret}, {strings.Repeat("x", 1<<20), secret},
		{"disabled", secret}, {"machine", secret}, {"machine", ""}, {"broken", secret},
	} {
		// The id is for the audit trail.
		key, _ := names.UsernameKey(c.name)
		known, _ := w.Store.UserByName(t.Context(), key)
		u, err := w.Authenticate(t.Context(), c.name, c.password)
		if !errors.Is(err, ErrInvalidCredentials) || err.Error() != ErrInvalidCredentials.Error() || u != (store.User{ID: known.ID}) {
			t.Errorf("%.20q %.20q: %+v, %v", c.name, c.password, u, err)
		}
	}
	if log := w.logs.String(); !strings.Contains(log, broken.ID) || strings.Contains(log, "CTFh") {
		t.Errorf("the log about a planted hash: %s", log)
	}
}

// The time of an answer must not tell who has an account. A product that looks
// first and hashes then differs by a factor of a hundred.
func TestRefusalsTakeTheSameTime(t *testing.T) {
	w := newWorld(t)
	w.Hasher = hasher(t, password.Config{Memory: 1 << 10, Iterations: 1, Parallelism: 1, Workers: 1})
	w.user("outdated") // a password that was hashed at a former cost
	w.Hasher = hasher(t, password.Config{Memory: 4 << 10, Iterations: 2, Parallelism: 1, Workers: 1})
	w.user("known")
	for _, n := range []NewUser{{Username: "disabled", Password: secret, Disabled: true}, {Username: "machine"}} {
		if _, err := w.CreateUser(t.Context(), System(), n); err != nil {
			t.Fatal(err)
		}
	}
	names := []string{"known", "unknown", "disabled", "machine", "not a username", "outdated"}
	// The fastest of each: whatever else runs on the machine only adds to it, and more
	// of it takes more attempts.
	fastest := make(map[string]time.Duration)
	differs := func(name string) bool {
		return fastest[name] < fastest["known"]/2 || fastest[name] > fastest["known"]*2
	}
	for round := 0; round < 7 || round < 310 && slices.ContainsFunc(names, differs); round++ {
		for _, name := range names {
			start := time.Now()
			if _, err := w.Authenticate(t.Context(), name, "wrong password"); !errors.Is(err, ErrInvalidCredentials) {
				t.Fatalf("%s: %v", name, err)
			}
			if took := time.Since(start); round == 0 || took < fastest[name] {
				fastest[name] = took
			}
		}
	}
	for _, name := range names {
		t.Logf("%-15s %v", name, fastest[name])
		if differs(name) {
			t.Errorf("%s: %v, a wrong password: %v", name, fastest[name], fastest["known"])
		}
	}
}

func TestAuthenticateIsBusyBeyondTheQueue(t *testing.T) {
	w := newWorld(t)
	w.user("alice")
	real := w.Hasher
	w.Hasher = full{real}
	for _, name := range []string{"alice", "nobody"} {
		_, err := w.Authenticate(t.Context(), name, secret)
		w.want(err, "login_busy")
	}
	w.Hasher = real
	if _, err := w.Authenticate(t.Context(), "alice", secret); err != nil {
		t.Error(err)
	}
}

// full is a Hasher whose queue is full.
type full struct{ Hasher }

func (full) Verify(context.Context, string, string) (bool, error) { return false, password.ErrBusy }

func TestALoginBringsThePasswordToTodaysCost(t *testing.T) {
	w := newWorld(t)
	alice := w.user("alice")
	before := w.stored(alice)
	w.Hasher = hasher(t, password.Config{Memory: 128, Iterations: 1, Parallelism: 1})
	if _, err := w.Authenticate(t.Context(), "alice", "wrong password"); err == nil || w.stored(alice) != before {
		t.Fatal("a wrong password changed something")
	}
	u, err := w.Authenticate(t.Context(), "alice", secret)
	if err != nil {
		t.Fatal(err)
	}
	after := w.stored(alice)
	if !strings.Contains(after.PasswordHash, "$m=128,") || after.Version != u.Version || after.Epoch != before.Epoch {
		t.Errorf("%+v", after)
	}
	if _, err := w.Authenticate(t.Context(), "alice", secret); err != nil || w.stored(alice) != after {
		t.Errorf("the next login: %v", err)
	}
}

// A password that is changed while an old one is being hashed anew stays changed.
func TestHashingAnewUndoesNoPasswordChange(t *testing.T) {
	w := newWorld(t)
	alice := w.user("alice")
	for _, memory := range []int{128, 192, 256, 320} {
		w.Hasher = hasher(t, password.Config{Memory: memory, Iterations: 1, Parallelism: 1, Queue: 8})
		var all sync.WaitGroup
		all.Go(func() { _, _ = w.Authenticate(t.Context(), "alice", secret) })
		all.Go(func() {
			if err := w.SetPassword(t.Context(), System(), alice.ID, "another password"); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		_, err := w.Authenticate(t.Context(), "alice", secret)
		w.want(err, "invalid_credentials")
		if err := w.SetPassword(t.Context(), System(), alice.ID, secret); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAuthenticateWithoutADatabase(t *testing.T) {
	w := newWorld(t)
	w.user("alice")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := w.Authenticate(ctx, "alice", secret)
	w.want(err, "database_unavailable")
}

func TestClaimsOf(t *testing.T) {
	w := newWorld(t)
	u := w.user("alice", "log=w", "shop=buyer")
	second := w.group("second", "log=r", "log=w")
	if _, err := w.CreateClaim(t.Context(), System(), NewClaim{"the same again", "log", "r"}); err != nil {
		t.Fatal(err)
	}
	w.group("third", "the same again")
	for _, g := range []string{second.ID, "third"} {
		if err := w.AddToGroup(t.Context(), System(), u.ID, g); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.claimsOf(u); got != "log=r,w shop=buyer" {
		t.Errorf("alice holds %q", got)
	}
	if got, err := w.ClaimsOf(t.Context(), "gone"); len(got) != 0 || err != nil {
		t.Errorf("nobody holds %v, %v", got, err)
	}

	same := w.stored(u)
	same.PasswordHash = ""
	if got, claims, err := w.Subject(t.Context(), u.ID); got != same || claims["log"] != "r,w" || claims["shop"] != "buyer" || len(claims) != 2 || err != nil {
		t.Errorf("alice is %+v with %v, %v", got, claims, err)
	}
	if got, claims, err := w.Subject(t.Context(), "gone"); got.ID != "" || claims != nil || !errors.Is(err, store.ErrNotFound) {
		t.Errorf("nobody is %+v with %v, %v", got, claims, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := w.Subject(ctx, u.ID)
	w.want(err, "database_unavailable")
}
