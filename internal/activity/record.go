package activity

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/watchword-auth/watchword/internal/state"
)

// A record is a byte that names the version, and then deflated: the time at which it was written,
// in seconds since 1970; the number of columns; and of each ring the number of its newest point, a
// bit for each point that says whether it is known, the newest first, and the known points' figures
// column by column, which deflates better than point by point. All numbers are varints.
//
// A reader that knows fewer columns leaves the others out, and one that knows more takes those that
// are not there for zero, so that replicas of two versions can be in one cluster.

const (
	version = 1
	// maxColumns is how many columns a record may have. It leaves room for those of later versions.
	maxColumns = 48
	// maxSlot bounds the numbers of points and the time of writing: the year 6325.
	maxSlot = 1 << 37
)

// maxInflated is the size of the longest record that is read.
var maxInflated = func() int {
	size := 2 * binary.MaxVarintLen64
	for _, s := range shapes {
		size += binary.MaxVarintLen64 + (s.length+7)/8 + s.length*maxColumns*4
	}
	return size
}()

// key names the record of a replica. An id may have characters that the name of a record may not.
func key(instance string) state.Key {
	return state.Key{Kind: kind, Owner: owner, ID: base64.RawURLEncoding.EncodeToString([]byte(instance))}
}

// instanceOf returns the id of the replica whose record it is.
func instanceOf(k state.Key) (string, error) {
	id, err := base64.RawURLEncoding.Strict().DecodeString(k.ID)
	if err != nil {
		return "", err
	}
	for _, c := range id {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return "", errors.New("activity: it is no replica's")
		}
	}
	if len(id) == 0 || len(id) > maxInstance {
		return "", errors.New("activity: it is no replica's")
	}
	return string(id), nil
}

// An encoder makes records. It keeps its buffers, which a replica needs again and again.
type encoder struct {
	plain   []byte
	deflate *flate.Writer
	out     bytes.Buffer
}

// encode returns a record, which is valid until the next call.
func (e *encoder) encode(seen time.Time, all rings) ([]byte, error) {
	b := binary.AppendUvarint(e.plain[:0], uint64(max(seen.Unix(), 0)))
	b = binary.AppendUvarint(b, uint64(columns))
	for _, r := range all {
		b = binary.AppendUvarint(b, uint64(r.last))
		bits := len(b)
		b = append(b, make([]byte, (r.length+7)/8)...)
		for i := range r.length {
			if _, known := r.at(r.last - int64(i)); known {
				b[bits+i/8] |= 1 << (i % 8)
			}
		}
		for column := range columns {
			for i := range r.length {
				if p, known := r.at(r.last - int64(i)); known {
					b = binary.AppendUvarint(b, uint64(p[column]))
				}
			}
		}
	}
	e.plain = b
	e.out.Reset()
	e.out.WriteByte(version)
	if e.deflate == nil {
		var err error
		if e.deflate, err = flate.NewWriter(&e.out, flate.BestSpeed); err != nil {
			return nil, err
		}
	} else {
		e.deflate.Reset(&e.out)
	}
	if _, err := e.deflate.Write(b); err != nil {
		return nil, err
	}
	if err := e.deflate.Close(); err != nil {
		return nil, err
	}
	return e.out.Bytes(), nil
}

var (
	errTorn    = errors.New("activity: not a whole record")
	errVersion = errors.New("activity: a record of another version")
)

// A decoder reads records. It keeps its buffers.
type decoder struct {
	inflate io.ReadCloser
	plain   bytes.Buffer
}

// decode reads a record.
func (d *decoder) decode(value []byte) (seen time.Time, all rings, err error) {
	if len(value) == 0 {
		return time.Time{}, rings{}, errTorn
	}
	if value[0] != version {
		return time.Time{}, rings{}, fmt.Errorf("%w: %d", errVersion, value[0])
	}
	in := bytes.NewReader(value[1:])
	if d.inflate == nil {
		d.inflate = flate.NewReader(in)
	} else if err := d.inflate.(flate.Resetter).Reset(in, nil); err != nil {
		return time.Time{}, rings{}, err
	}
	d.plain.Reset()
	n, err := io.Copy(&d.plain, io.LimitReader(d.inflate, int64(maxInflated)+1))
	if err != nil {
		return time.Time{}, rings{}, fmt.Errorf("%w: %w", errTorn, err)
	}
	if n > int64(maxInflated) || in.Len() > 0 {
		return time.Time{}, rings{}, errTorn
	}
	return parse(d.plain.Bytes())
}

// parse reads what decode has inflated.
func parse(b []byte) (seen time.Time, all rings, err error) {
	fail := func() (time.Time, rings, error) { return time.Time{}, rings{}, errTorn }
	next := func(most uint64) (n uint64, ok bool) {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > most {
			return 0, false
		}
		b = b[size:]
		return n, true
	}
	at, ok := next(maxSlot)
	if !ok {
		return fail()
	}
	has, ok := next(maxColumns)
	if !ok || has == 0 {
		return fail()
	}
	all = newRings()
	for _, r := range all {
		last, ok := next(maxSlot)
		if !ok || len(b) < (r.length+7)/8 {
			return fail()
		}
		r.last = int64(last)
		bits := b[:(r.length+7)/8]
		b = b[len(bits):]
		var known []*figures
		for i := range 8 * len(bits) {
			if bits[i/8]&(1<<(i%8)) == 0 {
				continue
			}
			slot := r.last - int64(i)
			if i >= r.length || slot < 1 {
				return fail()
			}
			at := slot % int64(r.length)
			r.known[at] = true
			known = append(known, &r.points[at])
		}
		for column := range int(has) {
			for _, p := range known {
				n, ok := next(maxFigure)
				if !ok {
					return fail()
				}
				if column < columns {
					p[column] = uint32(n)
				}
			}
		}
	}
	if len(b) > 0 {
		return fail()
	}
	return time.Unix(int64(at), 0).UTC(), all, nil
}
