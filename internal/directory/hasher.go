package directory

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/semaphore"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/problem"
)

// ErrBusy: as many passwords are being checked, and as many wait, as this replica
// allows itself.
var ErrBusy = problem.New(problem.Unavailable, "login_busy", "too many logins at this moment; try again").After(time.Second)

const (
	saltBytes = 16
	hashBytes = 32
)

// maxEncoded bounds a PHC string from the database or the init file, in bytes.
const maxEncoded = 256

// HasherConfig is what hashing a password costs, and how much of it at once.
type HasherConfig struct {
	Memory      int // KiB of one hash
	Iterations  int
	Parallelism int
	// Workers is how many hashes are computed at once; 0: one for each CPU.
	Workers int
	// Queue is how many may wait for a worker.
	Queue int
	Rand  io.Reader
}

// A Hasher computes password hashes, Argon2id (RFC 9106) as PHC strings. However
// many are asked for, those in work take no more than Workers × Memory, and what
// finished ones leave behind, because package argon2 takes fresh memory for every
// hash, less than that once more: see collect.
type Hasher struct {
	cost     cost
	rand     io.Reader
	admitted chan struct{}       // a place in the queue or in a worker
	budget   *semaphore.Weighted // KiB
	limit    int64               // KiB: the whole budget
	dummy    string

	left       atomic.Int64 // KiB that finished hashes have left behind
	collecting sync.Mutex
	idle       *time.Timer // gives memory back when no hash has ended for idleAfter
}

// idleAfter is long enough that a replica with few logins does not spend its time
// on giving back what it needs again.
const idleAfter = 10 * time.Second

// NewHasher makes a Hasher.
func NewHasher(c HasherConfig) (*Hasher, error) {
	if c.Workers == 0 {
		c.Workers = runtime.GOMAXPROCS(0)
	}
	if c.Workers < 0 || c.Queue < 0 {
		return nil, errors.New("password: workers and queue cannot be negative")
	}
	k := cost{memory: c.Memory, iterations: c.Iterations, parallelism: c.Parallelism}
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	h := &Hasher{
		cost:     k,
		rand:     c.Rand,
		admitted: make(chan struct{}, c.Workers+c.Queue),
		limit:    int64(c.Workers) * int64(c.Memory),
	}
	h.budget = semaphore.NewWeighted(h.limit)
	h.idle = time.AfterFunc(idleAfter, debug.FreeOSMemory)
	h.idle.Stop()
	// Random bytes in place of a hash: no password leads to them, and comparing
	// with them costs what comparing with a real hash costs.
	random := make([]byte, saltBytes+hashBytes)
	if _, err := io.ReadFull(h.rand, random); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	h.dummy = encoded{k, random[:saltBytes], random[saltBytes:]}.String()
	return h, nil
}

// Hash makes the PHC string of a password. ErrBusy when the queue is full; the
// context's error when it ends before the turn comes.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	e := encoded{h.cost, make([]byte, saltBytes), nil}
	if _, err := io.ReadFull(h.rand, e.salt); err != nil {
		return "", fmt.Errorf("password: salt: %w", err)
	}
	var err error
	if e.hash, err = h.compute(ctx, password, e, hashBytes); err != nil {
		return "", err
	}
	return e.String(), nil
}

// Verify says whether the PHC string is the password's. Errors are those of Hash,
// and one for a string that is no hash or asks for more than is allowed.
func (h *Hasher) Verify(ctx context.Context, password, phc string) (bool, error) {
	e, err := parsePHC(phc)
	if err != nil {
		return false, err
	}
	got, err := h.compute(ctx, password, e, len(e.hash))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, e.hash) == 1, nil
}

// Outdated says whether the PHC string was made with another cost than today's.
func (h *Hasher) Outdated(phc string) bool {
	e, err := parsePHC(phc)
	return err != nil || e.cost != h.cost
}

// compute runs one hash when its turn has come.
func (h *Hasher) compute(ctx context.Context, password string, e encoded, size int) ([]byte, error) {
	select {
	case h.admitted <- struct{}{}:
		defer func() { <-h.admitted }()
	default:
		return nil, ErrBusy
	}
	// A hash of a former, cheaper cost still takes a worker; a dearer one takes
	// several, or all.
	weight := min(max(int64(e.memory), int64(h.cost.memory)), h.limit)
	if err := h.budget.Acquire(ctx, weight); err != nil {
		return nil, err
	}
	defer h.budget.Release(weight)
	defer h.collect(weight)
	hash := e.cost.compute(password, e.salt, size)
	// A hash of a former, cheaper cost takes as long as one of today's, or a wrong
	// password would tell that there is such a user. A dearer one does tell it, until
	// its user logs in: to hide it, every login would have to cost as much as the
	// dearest hash that is stored, and lowering the cost would help nobody.
	if rest, any := h.cost.beyond(e.cost); any {
		rest.compute(password, e.salt, size)
	}
	return hash, nil
}

// collect has the garbage collected when finished hashes have left as much as the
// workers may take, instead of when the heap has doubled, in which the runtime counts
// what is in work. Who finishes meanwhile waits, so that it does not become more. It
// costs a millisecond or two after hashes of 24 ms each. Once the process holds more
// of other things than that, collecting costs more, and the runtime, which then
// lets as much garbage be, is left alone.
func (h *Hasher) collect(kib int64) {
	h.idle.Reset(idleAfter)
	allowed := max(h.limit, liveHeap()-h.limit)
	if h.left.Add(kib) < allowed {
		return
	}
	h.collecting.Lock()
	defer h.collecting.Unlock()
	if left := h.left.Load(); left >= allowed {
		runtime.GC()
		h.left.Add(-left)
	}
}

// liveHeap is what the last collection found in use, in KiB.
func liveHeap() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() >> 10)
}

// cost is what one hash costs.
type cost struct{ memory, iterations, parallelism int }

// compute runs the hash.
func (c cost) compute(password string, salt []byte, size int) []byte {
	return argon2.IDKey([]byte(password), salt, uint32(c.iterations), uint32(c.memory), uint8(c.parallelism), uint32(size))
}

// beyond is what takes as long as c takes longer than d, if that is anything. It
// needs no more memory than c.
func (c cost) beyond(d cost) (rest cost, any bool) {
	rest = c
	rest.memory = (c.memory*c.iterations - d.memory*d.iterations) / c.iterations
	return rest, rest.memory >= 8*rest.parallelism
}

func (c cost) check() error {
	switch {
	case c.iterations < 1 || c.iterations > config.MaxHashIterations:
		return fmt.Errorf("iterations must be 1 to %d", config.MaxHashIterations)
	case c.parallelism < 1 || c.parallelism > config.MaxHashParallelism:
		return fmt.Errorf("parallelism must be 1 to %d", config.MaxHashParallelism)
	case c.memory < 8*c.parallelism || c.memory > int(config.MaxHashMemory): // RFC 9106 §3.1
		return fmt.Errorf("memory must be %d to %d KiB", 8*c.parallelism, config.MaxHashMemory)
	case c.memory*c.iterations > int(config.MaxHashWork):
		return fmt.Errorf("memory × iterations must be at most %d KiB", config.MaxHashWork)
	}
	return nil
}

// encoded is a PHC string taken apart.
type encoded struct {
	cost
	salt, hash []byte
}

var errPHC = errors.New("not an Argon2id hash in PHC form ($argon2id$v=19$m=…,t=…,p=…$salt$hash)")

// parsePHC reads a hash and refuses what this program would not have written,
// apart from cost and lengths within bounds.
func parsePHC(s string) (encoded, error) {
	var e encoded
	if len(s) > maxEncoded {
		return e, errPHC
	}
	part := strings.Split(s, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return e, errPHC
	}
	if n, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &e.memory, &e.iterations, &e.parallelism); n != 3 || err != nil {
		return e, errPHC
	}
	var errSalt, errHash error
	e.salt, errSalt = base64.RawStdEncoding.Strict().DecodeString(part[4])
	e.hash, errHash = base64.RawStdEncoding.Strict().DecodeString(part[5])
	if errSalt != nil || errHash != nil || len(e.salt) < 8 || len(e.salt) > 64 || len(e.hash) < 16 || len(e.hash) > 64 || e.String() != s {
		return e, errPHC
	}
	if err := e.check(); err != nil {
		return e, fmt.Errorf("password hash: %w", err)
	}
	return e, nil
}

func (e encoded) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, e.memory, e.iterations, e.parallelism,
		b64.EncodeToString(e.salt), b64.EncodeToString(e.hash))
}
