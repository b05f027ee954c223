package directory

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/limit/limittest"
	"github.com/watchword-auth/watchword/internal/store"
)

// Hashes of secret as the C library's crypt and Python's hashlib make them.
const (
	bcryptOfSecret = "$2b$10$abcdefghijklmnopqrstuuCj7fyLDJytXL.TfOiOeiv0fQvSOK1/2"
	pbkdf2OfSecret = "$pbkdf2-sha256$i=10000,l=32$MDEyMzQ1Njc4OWFiY2RlZg$rqRM8zWcxqR5JgdNH2Ukv6ZDL0xynSbmRCDsePeFnOo"
	djangoOfSecret = "pbkdf2_sha256$10000$Qx7dJk0aPz$K5lpPK5+Mfpv9n3YAES9kNlAV4rmDSZhDOpt1jsJ9Oc="
)

// fromElsewhere makes a user with a hash of another system.
func (w *world) fromElsewhere(name, hash string) store.User {
	w.t.Helper()
	u, err := w.createUser(w.t.Context(), System(), NewUser{Username: name, Email: name + "@example.org"}, hash)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.stored(u)
}

func isOurs(u store.User) bool { return strings.HasPrefix(u.PasswordHash, "$argon2id$v=19$m=64,") }

// A hash of another system is verified, and replaced at the first login with the right password. A
// wrong password replaces nothing.
func TestForeignHashIsReplacedAtTheFirstLogin(t *testing.T) {
	w := newWorld(t)
	for name, hash := range map[string]string{"bcrypt": bcryptOfSecret, "pbkdf2": pbkdf2OfSecret, "django": djangoOfSecret} {
		u := w.fromElsewhere(name, hash)
		_, err := w.Authenticate(t.Context(), name, "wrong password")
		w.want(err, "invalid_credentials")
		if now := w.stored(u); now != u {
			t.Errorf("%s: a wrong password has changed the user", name)
		}
		for range 2 {
			if _, err := w.Authenticate(t.Context(), name, secret); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			now := w.stored(u)
			if !isOurs(now) || now.Version != u.Version+1 || now.Epoch != u.Epoch {
				t.Errorf("%s: %+v, was %+v", name, now, u)
			}
		}
	}
	if strings.Contains(w.logs.String(), "$2b$") {
		t.Error("a hash is in the log")
	}
}

// Users with a hash of another system change their password themselves, with the present one, and an
// administrator sets it.
func TestForeignHashAndOtherWays(t *testing.T) {
	w := newWorld(t)
	u := w.fromElsewhere("bob", bcryptOfSecret)
	_, err := w.ChangeOwnPassword(t.Context(), as(u), 1<<62, "wrong password", "another good password")
	w.want(err, "invalid_credentials")
	if _, err := w.ChangeOwnPassword(t.Context(), as(u), 1<<62, secret, "another good password"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Authenticate(t.Context(), "bob", "another good password"); err != nil {
		t.Error(err)
	}
	v := w.fromElsewhere("eve", bcryptOfSecret)
	if err := w.SetPassword(t.Context(), System(), v.ID, "set by somebody"); err != nil {
		t.Fatal(err)
	}
	_, err = w.Authenticate(t.Context(), "eve", secret)
	w.want(err, "invalid_credentials")
	if _, err := w.Authenticate(t.Context(), "eve", "set by somebody"); err != nil {
		t.Error(err)
	}
}

// between is a Hasher that does something between the check of a password and its new hash.
type between struct {
	Hasher
	do func()
}

func (b between) Outdated(hash string) bool {
	b.do()
	return b.Hasher.Outdated(hash)
}

// A password that is changed while a login replaces the hash of the old one stays changed.
func TestReplacingAHashUndoesNoChange(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		u := w.fromElsewhere("bob", bcryptOfSecret)
		w.Hasher = between{w.Hasher, sync.OnceFunc(func() {
			if err := w.SetPassword(t.Context(), System(), u.ID, "changed meanwhile"); err != nil {
				t.Error(err)
			}
		})}
		if _, err := w.Authenticate(t.Context(), "bob", secret); err != nil {
			t.Fatal(err) // it was right when it was checked; the session is of an epoch that has ended
		}
		_, err := w.Authenticate(t.Context(), "bob", secret)
		w.want(err, "invalid_credentials")
		if _, err := w.Authenticate(t.Context(), "bob", "changed meanwhile"); err != nil {
			t.Error(err)
		}
	})
}

// Of logins at once on two replicas exactly one replaces the hash, and all succeed.
func TestAHashIsReplacedOnce(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		const logins = 6
		other := replica(t, w.url)
		u := w.fromElsewhere("bob", pbkdf2OfSecret)
		var verified sync.WaitGroup // all have verified the old hash before one replaces it
		verified.Add(logins)
		meet := func() { verified.Done(); verified.Wait() }
		for _, one := range []*world{w, other} {
			one.Hasher = between{one.Hasher, meet}
		}
		var all sync.WaitGroup
		for i := range logins {
			one := []*world{w, other}[i%2]
			all.Go(func() {
				if _, err := one.Service.Authenticate(t.Context(), limittest.Attempt(t.Context()), "bob", secret); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if now := w.stored(u); !isOurs(now) || now.Version != u.Version+1 {
			t.Errorf("version %d, was %d: replaced %d times", now.Version, u.Version, now.Version-u.Version)
		}
		if logs := w.logs.String() + other.logs.String(); strings.Contains(logs, "could not be hashed again") {
			t.Error(logs)
		}
	})
}

// What is counted of the hashes is taken over by all replicas, counted again when it is old, and given
// up when no such hash is left.
func TestCensus(t *testing.T) {
	onEach(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.user("ours")
		if n, err := w.CountHashes(ctx); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		if first, err := w.lastCensus(ctx); err != nil || first.Own != 1 || first.At.IsZero() {
			t.Errorf("a census without such hashes: %+v, %v", first, err)
		}
		w.fromElsewhere("bob", bcryptOfSecret)
		w.fromElsewhere("eve", strings.Replace(bcryptOfSecret, "$2b$", "$2y$", 1))
		w.fromElsewhere("dan", djangoOfSecret)
		if n, err := w.CountHashes(ctx); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		last, err := w.lastCensus(ctx)
		if err != nil || last.Own != 1 || last.Foreign["$2b$10$"] != 2 || last.Foreign["$pbkdf2-sha256$i=10000$"] != 1 || len(last.Foreign) != 2 || len(last.Key) != 32 {
			t.Errorf("%+v, %v", last, err)
		}
		for _, name := range []string{"bob", "eve", "dan"} {
			if _, err := w.Authenticate(ctx, name, secret); err != nil {
				t.Fatal(err)
			}
		}
		other := replica(t, w.url)
		if err := other.followCensus(ctx); err != nil { // not old yet
			t.Fatal(err)
		}
		if now, _ := other.lastCensus(ctx); now.Users() != 3 {
			t.Errorf("%+v", now)
		}
		other.later(time.Now().Add(censusEvery))
		if err := other.followCensus(ctx); err != nil {
			t.Fatal(err)
		}
		if now, _ := w.lastCensus(ctx); now.Users() != 0 || now.Own != 4 || string(now.Key) != string(last.Key) {
			t.Errorf("%+v", now)
		}
	})
}
