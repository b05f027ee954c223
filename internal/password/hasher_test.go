package password

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/config"
)

// cheap is a Hasher for tests that are not about hashing.
func cheap(t testing.TB) *Hasher {
	return hasher(t, Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 2, Queue: 64})
}

func hasher(t testing.TB, c Config) *Hasher {
	t.Helper()
	c.Rand = rand.Reader
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHashAndVerify(t *testing.T) {
	ctx, h := t.Context(), cheap(t)
	one, err := h.Hash(ctx, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	two, _ := h.Hash(ctx, "correct horse")
	if one == two {
		t.Error("two hashes of one password are equal: no salt")
	}
	if !strings.HasPrefix(one, "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Errorf("not in PHC form: %s", one)
	}
	for password, want := range map[string]bool{"correct horse": true, "correct horsf": false, "": false} {
		if got, err := h.Verify(ctx, password, one); got != want || err != nil {
			t.Errorf("%q: %v, %v", password, got, err)
		}
	}
	for _, password := range []string{"correct horse", ""} {
		if got, err := h.Verify(ctx, password, ""); got || err != nil {
			t.Errorf("%q is the password of no hash: %v, %v", password, got, err)
		}
	}
	if h.Outdated(one) {
		t.Error("a fresh hash is outdated")
	}
	for _, other := range []Config{{Memory: 128, Iterations: 1, Parallelism: 1}, {Memory: 64, Iterations: 2, Parallelism: 1}, {Memory: 64, Iterations: 1, Parallelism: 2}} {
		if !hasher(t, other).Outdated(one) {
			t.Errorf("not outdated for %+v", other)
		}
	}
}

// From the tests of the reference implementation, phc-winner-argon2.
func TestVerifyReferenceHash(t *testing.T) {
	const phc = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	if ok, err := cheap(t).Verify(t.Context(), "password", phc); !ok || err != nil {
		t.Errorf("%v, %v", ok, err)
	}
}

// A hash that somebody planted in the database or the init file must not cost
// more than this program allows, nor be read otherwise than it looks.
func TestPlantedHashesAreRefused(t *testing.T) {
	const salt, hash = "c29tZXNhbHQ", "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for _, phc := range []string{
		"x", "plaintext password",
		"$argon2i$v=19$m=64,t=1,p=1$" + salt + "$" + hash,
		"$argon2id$v=16$m=64,t=1,p=1$" + salt + "$" + hash,
		"$argon2id$m=64,t=1,p=1$" + salt + "$" + hash,
		"$argon2id$v=19$m=4194304,t=1,p=1$" + salt + "$" + hash,
		"$argon2id$v=19$m=99999999999999999999,t=1,p=1$" + salt + "$" + hash,
		"$argon2id$v=19$m=64,t=1000000,p=1$" + salt + "$" + hash,
		"$argon2id$v=19$m=262144,t=16,p=1$" + salt + "$" + hash,
		"$argon2id$v=19$m=64,t=0,p=1$" + salt + "$" + hash,
		"$argon2id$v=19$m=64,t=1,p=0$" + salt + "$" + hash,
		"$argon2id$v=19$m=65536,t=1,p=256$" + salt + "$" + hash,
		"$argon2id$v=19$m=-64,t=1,p=1$" + salt + "$" + hash,
		"$argon2id$v=19$m=064,t=1,p=1$" + salt + "$" + hash,
		"$argon2id$v=19$m=64,t=1,p=1,x=1$" + salt + "$" + hash,
		"$argon2id$v=19$m=64,t=1,p=1$$" + hash,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$",
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$AAAA",
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + hash + "=",
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + hash + "$",
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + strings.Repeat("A", 1000),
		"$2a$15$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
		"$2a$31$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
		"$2a$99$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
		"$2x$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy",
		"$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhW",
		"$2a$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhW=",
		"$pbkdf2-sha256$i=1000000000$" + salt + "$" + hash,
		"$pbkdf2-sha256$i=99999999999999999999$" + salt + "$" + hash,
		"$pbkdf2-sha256$i=0$" + salt + "$" + hash,
		"$pbkdf2-sha256$i=-1$" + salt + "$" + hash,
		"$pbkdf2-sha256$i=01000$" + salt + "$" + hash,
		"$pbkdf2-sha1$i=1000$" + salt + "$" + hash,
		"$pbkdf2-sha256$1000$" + salt + "$" + hash, // as it is imported, and not as it is stored
		"pbkdf2_sha256$1000$saltsaltsalt$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc=",
		"$pbkdf2-sha256$i=1000$$" + hash,
		"$pbkdf2-sha256$i=1000$" + salt + "$",
		"$pbkdf2-sha256$i=1000$" + salt + "$" + hash + hash[1:],
	} {
		if ok, err := cheap(t).Verify(t.Context(), "password", phc); ok || err == nil {
			t.Errorf("%q is taken", phc)
		}
	}
}

func TestHasherRefusesWhatCannotWork(t *testing.T) {
	for _, c := range []Config{
		{}, {Memory: 64, Iterations: 1}, {Memory: 64, Parallelism: 1}, {Memory: 7, Iterations: 1, Parallelism: 1},
		{Memory: int(config.MaxHashMemory) + 1, Iterations: 1, Parallelism: 1}, {Memory: int(config.MaxHashMemory), Iterations: 5, Parallelism: 1},
		{Memory: 64, Iterations: 1, Parallelism: 1, Workers: -1}, {Memory: 64, Iterations: 1, Parallelism: 1, Queue: -1},
	} {
		c.Rand = rand.Reader
		if _, err := New(c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// occupy takes all workers of h until the returned function is called.
func occupy(t *testing.T, h *Hasher) (release func()) {
	t.Helper()
	if err := h.queue.enter(t.Context(), h.limit, 1); err != nil {
		t.Fatal(err)
	}
	return func() { h.queue.leave(h.limit) }
}

// waits returns how many hashes wait.
func waits(h *Hasher) int {
	h.queue.mu.Lock()
	defer h.queue.mu.Unlock()
	return len(h.queue.waiting)
}

// Where nothing is set, hashes leave one processor to what needs none, if there are two.
func TestHashesLeaveAProcessorFree(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for processors, workers := range map[int]int64{1: 1, 2: 1, 3: 2, 8: 7} {
		runtime.GOMAXPROCS(processors)
		h := hasher(t, Config{Memory: 64, Iterations: 1, Parallelism: 1})
		if got := h.limit / 64; got != workers {
			t.Errorf("%d processors: %d workers, want %d", processors, got, workers)
		}
	}
}

func TestBeyondTheQueueIsBusy(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := hasher(t, Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 1, Queue: 3, Registerer: registry})
	release := occupy(t, h)
	results := make(chan error, 3)
	for i := range 3 {
		go func() {
			_, err := h.Hash(From(t.Context(), Source{Address: fmt.Sprintf("10.%d.0.1", i), Account: fmt.Sprint(i)}), "x")
			results <- err
		}()
	}
	eventually(t, func() bool { return waits(h) == 3 })
	_, err := h.Hash(From(t.Context(), Source{Address: "192.0.2.1", Account: "another"}), "x")
	if !errors.Is(err, ErrBusy) || ErrBusy.RetryAfter <= 0 {
		t.Errorf("beyond the queue: %v", err)
	}
	measured(t, registry, map[string]float64{"es_waiting": 3, "es_waiting_max": 3, "es_running": 0, "es_running_max": 1, "_duration_seconds": 0, "_wait_seconds": 0, "_refusals_total busy": 1})
	release()
	for range 3 {
		if err := <-results; err != nil {
			t.Errorf("in the queue: %v", err)
		}
	}
	if _, err := h.Hash(t.Context(), "x"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	measured(t, registry, map[string]float64{"es_waiting": 0, "es_running": 0, "_duration_seconds": 4, "_wait_seconds": 4, "_refusals_total busy": 1, "_refusals_total flood": 0})
}

// measured fails the test unless metrics of the pool have these values; of a histogram, how often.
func measured(t *testing.T, g prometheus.Gatherer, want map[string]float64) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "watchword_password_hash")
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, n := range want {
		if v, ok := got[name]; !ok || v != n {
			t.Errorf("%s is %v, want %v; there are %v", name, v, n, got)
		}
	}
}

func TestACancelledHashLeavesTheQueue(t *testing.T) {
	h := hasher(t, Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 1, Queue: 1})
	release := occupy(t, h)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := h.Hash(ctx, "x")
		result <- err
	}()
	eventually(t, func() bool { return waits(h) == 1 })
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if n := waits(h); n != 0 {
		t.Errorf("%d hashes wait", n)
	}
}

// A hash that was made when hashes cost more occupies several workers.
func TestDearerHashesStayWithinTheBudget(t *testing.T) {
	h := hasher(t, Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 4, Queue: 4})
	dear, err := hasher(t, Config{Memory: 192, Iterations: 1, Parallelism: 1}).Hash(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // room for two of today's is left
		if err := h.queue.enter(t.Context(), 64, 10); err != nil { // so that what follows comes after the dear one
			t.Fatal(err)
		}
	}
	done := make(chan error)
	go func() {
		_, err := h.Verify(From(t.Context(), Source{Address: "192.0.2.1"}), "x", dear)
		done <- err
	}()
	eventually(t, func() bool { return waits(h) == 1 })
	later := make(chan error)
	go func() { later <- h.queue.enter(t.Context(), 64, 1) }()
	eventually(t, func() bool { return waits(h) == 2 }) // it would find memory, and does not overtake
	h.queue.leave(64)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-later; err != nil {
		t.Error(err)
	}
}

// Twenty logins at once, each of which takes 8 MiB, would take 160 MiB.
func TestMemoryOfManyLoginsIsBounded(t *testing.T) {
	const workers, memory, logins = 2, 8 << 10, 20
	h := hasher(t, Config{Memory: memory, Iterations: 1, Parallelism: 1, Workers: workers, Queue: logins})
	runtime.GC()
	base := heap()
	var stop atomic.Bool
	peak := make(chan uint64)
	go func() {
		var most uint64
		for !stop.Load() {
			most = max(most, heap())
			time.Sleep(500 * time.Microsecond)
		}
		peak <- most
	}()
	var wg sync.WaitGroup
	for range logins {
		wg.Go(func() {
			if _, err := h.Verify(context.Background(), "x", ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	stop.Store(true)
	took := (<-peak - base) >> 20
	// In work, and less than the same again as garbage.
	const allowed = 2 * workers * memory >> 10
	t.Logf("%d logins: %d MiB at most, %d in work at once", logins, took, workers*memory>>10)
	if took > allowed {
		t.Errorf("%d logins took %d MiB, more than %d", logins, took, allowed)
	}
}

func heap() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// eventually waits for a condition that is about to come true.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

func FuzzParsePHC(f *testing.F) {
	const rest = "$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	for _, seed := range []string{
		"$argon2id$v=19$m=65536,t=2,p=1" + rest, "$argon2id$v=19$m=64,t=1,p=1" + rest, "$argon2id$v=19$m=065536,t=+2,p=1" + rest,
		"$argon2id$v=19$t=2,m=65536,p=1" + rest, "$argon2id$v=16$m=64,t=1,p=1" + rest, "$argon2id$v=19$m=4294967295,t=1,p=255" + rest,
		"$argon2id$v=19$m=64,t=1,p=1" + rest + "=", "$argon2id$v=19$m=64,t=1,p=1$$", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if e, err := parsePHC(s); err == nil && (e.String() != s || e.check() != nil) {
			t.Errorf("%q is read as %q", s, e)
		}
	})
}

func BenchmarkHash(b *testing.B) {
	h := hasher(b, Config{Memory: 19 << 10, Iterations: 2, Parallelism: 1})
	for b.Loop() {
		if _, err := h.Hash(b.Context(), "correct horse battery staple"); err != nil {
			b.Fatal(err)
		}
	}
}

// A hash that can be made later takes no worker that somebody else could have, and waits for none.
func TestHashNow(t *testing.T) {
	h := hasher(t, Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 1, Queue: 1})
	release := occupy(t, h)
	if _, err := h.HashNow(t.Context(), "x"); !errors.Is(err, ErrNoWorker) {
		t.Errorf("%v", err)
	}
	release()
	hash, err := h.HashNow(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if match, err := h.Verify(t.Context(), "x", hash); !match || err != nil {
		t.Error(match, err)
	}
}
