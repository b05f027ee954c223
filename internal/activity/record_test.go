package activity

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watchword-auth/watchword/internal/state"
)

var someTime = time.Date(2026, 11, 29, 23, 45, 6, 0, time.UTC)

// full returns rings in which every point is known.
func full(figure func() uint32) rings {
	all := newRings()
	for _, r := range all {
		for i := range r.length {
			var f figures
			for column := range f {
				f[column] = figure()
			}
			r.add(r.slot(someTime)-int64(r.length-1-i), &f)
		}
	}
	return all
}

// deflated is a record of plain bytes.
func deflated(t testing.TB, plain []byte) []byte {
	t.Helper()
	out := bytes.NewBuffer([]byte{version})
	w, err := flate.NewWriter(out, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain)
	w.Close()
	return out.Bytes()
}

func mustEncode(t testing.TB, all rings) []byte {
	t.Helper()
	value, err := new(encoder).encode(someTime, all)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(value)
}

// Whatever was added when: it is read as it was written.
func TestRecordsAreReadAsTheyWereWritten(t *testing.T) {
	var e encoder // they are used again and again
	var d decoder
	rapid.Check(t, func(t *rapid.T) {
		all := newRings()
		at := someTime
		for range rapid.IntRange(0, 60).Draw(t, "samples") {
			at = at.Add(time.Duration(rapid.OneOf(rapid.IntRange(-30, 30), rapid.IntRange(-1e6, 1e6)).Draw(t, "seconds")) * time.Second)
			var f figures
			for i := range f {
				f[i] = rapid.Uint32Range(0, maxFigure).Draw(t, "figure")
			}
			all.add(at, &f)
		}
		value, err := e.encode(at, all)
		if err != nil {
			t.Fatal(err)
		}
		seen, got, err := d.decode(value)
		if err != nil {
			t.Fatal(err)
		}
		if !seen.Equal(at) {
			t.Fatalf("written at %v, read %v", at, seen)
		}
		for i, r := range all {
			was, is := map[int64]figures{}, map[int64]figures{}
			r.each(func(slot int64, f *figures) { was[slot] = *f })
			got[i].each(func(slot int64, f *figures) { is[slot] = *f })
			if got[i].last != r.last || !reflect.DeepEqual(was, is) {
				t.Fatalf("ring %d: wrote %v, read %v", i, was, is)
			}
		}
	})
}

// The busiest replica's record fits into the state, however badly it deflates, and what a later
// version may write is read.
func TestTheLongestRecord(t *testing.T) {
	value := mustEncode(t, full(func() uint32 { return maxFigure - rand.Uint32N(maxFigure/2) }))
	if len(value) > state.MaxValue {
		t.Errorf("%d bytes, and at most %d are kept", len(value), state.MaxValue)
	}
	if _, _, err := new(decoder).decode(value); err != nil {
		t.Error(err)
	}
	if len(value) < state.MaxValue*3/4 {
		t.Errorf("%d bytes are not the longest record", len(value))
	}
}

// plain builds what is deflated: rings with one point each, whose columns count up from 1.
func plain(has int, change func([]byte) []byte) []byte {
	b := binary.AppendUvarint(nil, uint64(someTime.Unix()))
	b = binary.AppendUvarint(b, uint64(has))
	for _, s := range shapes {
		b = binary.AppendUvarint(b, uint64(s.slot(someTime)))
		bits := make([]byte, (s.length+7)/8)
		bits[0] = 1
		b = append(b, bits...)
		for i := range has {
			b = binary.AppendUvarint(b, uint64(i+1))
		}
	}
	if change != nil {
		b = change(b)
	}
	return b
}

// Replicas of versions with fewer or more columns understand each other.
func TestOtherColumns(t *testing.T) {
	for _, has := range []int{1, columns - 1, columns, columns + 1, maxColumns} {
		seen, all, err := new(decoder).decode(deflated(t, plain(has, nil)))
		if err != nil || !seen.Equal(someTime) {
			t.Fatalf("%d columns: %v, %v", has, seen, err)
		}
		for i, r := range all {
			f, known := r.at(r.slot(someTime))
			if !known {
				t.Fatalf("ring %d has no point", i)
			}
			for column, n := range f {
				want := uint32(column + 1)
				if column >= has {
					want = 0
				}
				if n != want {
					t.Fatalf("of %d columns, column %d has %d", has, column, n)
				}
			}
		}
	}
}

// A record that is torn, too long, or of another version is refused.
func TestWhatIsNoRecord(t *testing.T) {
	var d decoder
	whole := mustEncode(t, full(func() uint32 { return rand.Uint32N(1000) }))
	for n := range len(whole) {
		if n%31 != 0 && n > 20 && n < len(whole)-20 { // each would take seconds
			continue
		}
		if _, _, err := d.decode(whole[:n]); !errors.Is(err, errTorn) {
			t.Fatalf("the first %d of %d bytes: %v", n, len(whole), err)
		}
	}
	put := func(at int, b ...byte) func([]byte) []byte {
		return func(p []byte) []byte { copy(p[at:], b); return p }
	}
	lastAt := len(binary.AppendUvarint(nil, uint64(someTime.Unix()))) + 1
	for name, value := range map[string][]byte{
		"nothing":              {},
		"only a version":       {version},
		"another version":      append([]byte{version + 1}, whole[1:]...),
		"text":                 []byte("{\"points\":[]}"),
		"more after it":        append(bytes.Clone(whole), 0),
		"more inside":          deflated(t, plain(columns, func(p []byte) []byte { return append(p, 0) })),
		"less inside":          deflated(t, plain(columns, func(p []byte) []byte { return p[:len(p)-1] })),
		"no columns":           deflated(t, plain(0, nil)),
		"too many columns":     deflated(t, plain(maxColumns+1, nil)),
		"a huge time":          deflated(t, plain(columns, put(0, 0xff, 0xff, 0xff, 0xff, 0xff))),
		"a huge number":        deflated(t, plain(columns, func(p []byte) []byte { return append(p[:len(p)-1], 0x80, 0x80, 0x80, 0x80, 1) })),
		"an endless number":    deflated(t, bytes.Repeat([]byte{0xff}, 1000)),
		"a point before 1970":  deflated(t, plain(columns, put(lastAt, 0x80, 0x80, 0x80, 0))),
		"a point out of range": deflated(t, plain(columns, put(lastAt+4+4, 0x80))),
	} {
		if _, _, err := d.decode(value); !errors.Is(err, errTorn) && !errors.Is(err, errVersion) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := d.decode(whole); err != nil { // the decoder is as good as before
		t.Error(err)
	}
}

// What inflates a thousandfold takes no more memory than the longest record.
func TestABombIsNotInflated(t *testing.T) {
	bomb := deflated(t, make([]byte, 16<<20))
	if len(bomb) > state.MaxValue {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, _, err := new(decoder).decode(bomb); !errors.Is(err, errTorn) {
		t.Errorf("a bomb: %v", err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("it took %d bytes", took)
	}
}

// Ids of replicas have characters that names of records may not have.
func TestKeys(t *testing.T) {
	for _, id := range []string{"a", "web-1.example_com", strings.Repeat("x.", maxInstance/2)} {
		k := key(id)
		if err := k.Check(); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if got, err := instanceOf(k); got != id || err != nil {
			t.Errorf("%s: read %q, %v", id, got, err)
		}
	}
	for _, id := range []string{"<script>", "a b", "ä", strings.Repeat("x", maxInstance+1), ""} {
		if got, err := instanceOf(key(id)); err == nil {
			t.Errorf("%q: read %q", id, got)
		}
	}
	if got, err := instanceOf(state.Key{ID: "YR"}); err == nil { // "YQ" with bits that mean nothing
		t.Errorf("two names of one replica: %q", got)
	}
}

// No bytes make a reader panic, or give figures beyond the bounds.
func FuzzDecode(f *testing.F) {
	f.Add(mustEncode(f, newRings())[1:], false)
	f.Add(plain(columns, nil), true)
	f.Add(plain(maxColumns, nil), true)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, b []byte, inside bool) {
		value := append([]byte{version}, b...)
		if inside {
			value = deflated(t, b)
		}
		seen, all, err := new(decoder).decode(value)
		if err != nil {
			return
		}
		for _, r := range all {
			r.each(func(slot int64, p *figures) {
				for _, n := range p {
					if n > maxFigure || slot < 1 {
						t.Fatalf("point %d has %d", slot, n)
					}
				}
			})
		}
		// What was read can be written, and gone on with.
		f := figures{1}
		all.add(someTime, &f)
		again, err := new(encoder).encode(seen, all)
		if err != nil || len(again) > state.MaxValue {
			t.Fatalf("%d bytes, %v", len(again), err)
		}
		if _, _, err := new(decoder).decode(again); err != nil {
			t.Fatal(err)
		}
	})
}
