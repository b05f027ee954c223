package directory

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// What hashes took is given back to the system when none has ended for a while.
func TestIdleHasherGivesMemoryBack(t *testing.T) {
	const memory = 64 << 10
	synctest.Test(t, func(t *testing.T) {
		h := hasher(t, HasherConfig{Memory: memory, Iterations: 1, Parallelism: 1, Workers: 1, Queue: 1})
		if _, err := h.Verify(t.Context(), "x", h.dummy); err != nil {
			t.Fatal(err)
		}
		before := taken()
		time.Sleep(idleAfter)
		synctest.Wait()
		if after := taken(); after+memory<<10*9/10 > before {
			t.Errorf("%d MiB were taken, and %d when it had been idle", before>>20, after>>20)
		}
	})
}

// taken is what the process has of the system for its heap.
func taken() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys - m.HeapReleased
}
