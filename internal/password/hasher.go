package password

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-auth/watchword/internal/trace"
)

const (
	saltBytes = 16
	hashBytes = 32
)

// Config is what one hash costs, and how many may be computed at once.
type Config struct {
	Memory      int // KiB of one hash
	Iterations  int
	Parallelism int
	Workers     int // see the function Workers
	// Queue is how many more may wait for a worker.
	Queue int
	Rand  io.Reader
	Now   func() time.Time // nil: time.Now
	// Registerer gets the metrics of the pool; nil: nobody does.
	Registerer prometheus.Registerer
}

// A Hasher computes and verifies hashes. The hashes in work together take no more memory
// than Workers × Memory. Package argon2 allocates fresh memory for every hash; what the
// finished hashes leave behind is less than the same amount again, or than that of two hashes
// (see collect). A Hasher may be used by any number of goroutines.
type Hasher struct {
	cost    cost
	rand    io.Reader
	queue   *queue
	limit   int64 // KiB: what all hashes in work may take
	metrics poolMetrics
	decoy   encoded // in place of the hash of a user who has none
	census  atomic.Pointer[Census]

	garbage    atomic.Int64 // KiB that finished hashes have left behind
	collecting sync.Mutex
	idle       *time.Timer // returns memory to the system when no hash has ended for idleAfter
}

// idleAfter is long enough that a replica with few logins does not spend its time on
// returning memory that it needs again.
const idleAfter = 10 * time.Second

// worthReturning is the memory of hashes, in KiB, below which none is returned: that takes a
// collection of the whole heap, and takes from the process what it needs for other things.
const worthReturning = 4 << 10

// Workers returns how many hashes are computed at once with the setting n. 0 stands for one
// fewer than runtime.GOMAXPROCS, so that what needs no hash finds a CPU free, but at least
// one.
func Workers(n int) int {
	if n != 0 {
		return n
	}
	return max(1, runtime.GOMAXPROCS(0)-1)
}

// New makes a Hasher.
func New(c Config) (*Hasher, error) {
	c.Workers = Workers(c.Workers)
	if c.Workers < 0 || c.Queue < 0 {
		return nil, errors.New("password: workers and queue cannot be negative")
	}
	k := cost{memory: c.Memory, iterations: c.Iterations, parallelism: c.Parallelism}
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	h := &Hasher{cost: k, rand: c.Rand, limit: int64(c.Workers) * int64(c.Memory)}
	h.queue = newQueue(h.limit, c.Queue, c.Now)
	h.idle = time.AfterFunc(idleAfter, debug.FreeOSMemory)
	h.idle.Stop()
	h.metrics = newMetrics(c.Registerer, h.queue, c.Workers, h.foreignUsers)
	// The decoy's hash is random: no password leads to it, and comparing with it costs
	// what comparing with a real hash costs.
	random := make([]byte, saltBytes+hashBytes)
	if _, err := io.ReadFull(h.rand, random); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	h.decoy = encoded{k, random[:saltBytes], random[saltBytes:]}
	return h, nil
}

// Hash makes the PHC string of a prepared password. It returns ErrBusy or ErrFlood when the
// queue is full, and the context's error when the context ends before a worker is free.
// From says on whose behalf.
func (h *Hasher) Hash(ctx context.Context, prepared string) (string, error) {
	return h.hash(ctx, prepared, h.queue.enter)
}

// HashNow is Hash for what can be done later: it does not wait. It returns ErrNoWorker when
// none is free, or others wait for one.
func (h *Hasher) HashNow(ctx context.Context, prepared string) (string, error) {
	return h.hash(ctx, prepared, func(_ context.Context, weight int64, _ float64) error { return h.queue.enterNow(weight) })
}

// An entering is the method of a queue by which a hash gets a worker.
type entering func(ctx context.Context, weight int64, price float64) error

func (h *Hasher) hash(ctx context.Context, prepared string, enter entering) (string, error) {
	e := encoded{h.cost, make([]byte, saltBytes), nil}
	if _, err := io.ReadFull(h.rand, e.salt); err != nil {
		return "", fmt.Errorf("password: salt: %w", err)
	}
	if err := h.run(ctx, e.cost, enter, func() {
		e.hash = e.compute(prepared, e.salt, hashBytes)
	}); err != nil {
		return "", err
	}
	return e.String(), nil
}

// Verify reports whether the stored hash was made of the prepared password. No password
// matches an empty text, which costs as much as the hash of a user could (Pretend). Errors are those
// of Hash and of CheckHash.
func (h *Hasher) Verify(ctx context.Context, prepared, text string) (match bool, err error) {
	var of stored
	if text == "" {
		of = h.pretended(ctx)
	} else if of, err = parse(text); err != nil {
		return false, err
	}
	err = h.run(ctx, of, h.queue.enter, func() {
		match = of.matches(prepared)
		// A cheaper hash is followed by work that makes it as slow as today's. Otherwise the
		// fast answer to a wrong password would reveal that the user exists. A dearer hash
		// does reveal it, until its user logs in and it is replaced, unless those who do not exist
		// have dear ones as well (Pretend). Hiding that of a single user would make
		// every login as slow as the dearest stored hash, so that lowering the cost would
		// help nobody.
		if rest, more := h.cost.beyond(of.work()); more {
			rest.compute(prepared, h.decoy.salt, hashBytes)
		}
	})
	return match && text != "" && err == nil, err
}

// Outdated reports whether the stored hash is not one of Argon2id with today's cost.
func (h *Hasher) Outdated(text string) bool {
	e, err := parsePHC(text)
	return err != nil || e.cost != h.cost
}

// run computes one hash when a worker is free.
func (h *Hasher) run(ctx context.Context, of interface {
	kib() int
	work() int
}, enter entering, compute func()) error {
	// A hash that is cheaper than today's occupies one worker; a dearer one occupies
	// several, or all. One that takes longer and needs no memory occupies one for longer.
	weight := min(max(int64(of.kib()), int64(h.cost.memory)), h.limit)
	price := max(1, float64(of.work())/float64(h.cost.work()))
	_, waits := trace.Start(ctx, "wait for a worker")
	asked := time.Now()
	err := enter(ctx, weight, price)
	waits.End(err)
	if err != nil {
		h.metrics.refuse(err)
		return err
	}
	began := time.Now()
	h.metrics.waited.Observe(began.Sub(asked).Seconds())
	h.metrics.running.Add(1)
	defer h.queue.leave(weight)
	defer func() {
		h.metrics.running.Add(-1)
		h.metrics.took.Observe(time.Since(began).Seconds())
	}()
	defer h.collect(weight)
	_, t := trace.Start(ctx, "hash a password")
	defer t.End(nil)
	compute()
	return nil
}

// collect runs the garbage collector when finished hashes have left behind as much as all
// workers may take, and as much as two hashes. The runtime alone would wait until the heap
// has doubled, and it counts the hashes in work as heap. Hashes that finish during a
// collection wait for it, so that they do not add to the garbage.
//
// A collection takes a millisecond or two, and happens after several hashes of 24 ms each.
// It takes longer when the process holds much other memory. But then the runtime lets
// garbage grow to the size of the live heap, and collect lets it grow nearly as far.
func (h *Hasher) collect(kib int64) {
	if h.limit >= worthReturning {
		h.idle.Reset(idleAfter)
	}
	allowed := max(h.limit, 2*int64(h.cost.memory), liveHeap()-h.limit)
	if h.garbage.Add(kib) < allowed {
		return
	}
	h.collecting.Lock()
	defer h.collecting.Unlock()
	if garbage := h.garbage.Load(); garbage >= allowed {
		runtime.GC()
		h.garbage.Add(-garbage)
	}
}

// liveHeap returns what the last collection found in use, in KiB.
func liveHeap() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() >> 10)
}
