package password

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// The memory of hashes is returned to the system when none has ended for a while.
func TestIdleHasherGivesMemoryBack(t *testing.T) {
	const memory = 64 << 10
	synctest.Test(t, func(t *testing.T) {
		h := hasher(t, Config{Memory: memory, Iterations: 1, Parallelism: 1, Workers: 1, Queue: 1})
		if _, err := h.Verify(t.Context(), "x", ""); err != nil {
			t.Fatal(err)
		}
		before := taken()
		time.Sleep(idleAfter)
		synctest.Wait()
		if after := taken(); after+memory<<10*9/10 > before {
			t.Errorf("the heap has %d MiB of the system, and %d after it was idle", before>>20, after>>20)
		}
	})
}

// A hasher whose hashes take little memory does not have the whole heap collected for it.
func TestIdleHasherLeavesTheHeapAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hasher(t, Config{Memory: 64, Iterations: 1, Parallelism: 1, Workers: 2, Queue: 1})
		if _, err := h.Verify(t.Context(), "x", ""); err != nil {
			t.Fatal(err)
		}
		before := forced()
		time.Sleep(2 * idleAfter)
		synctest.Wait()
		if after := forced(); after != before {
			t.Errorf("%d collections were forced", after-before)
		}
	})
}

// forced returns how often a collection was asked for.
func forced() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumForcedGC
}

// taken returns the bytes that the process has from the system for its heap.
func taken() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys - m.HeapReleased
}
