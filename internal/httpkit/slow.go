package httpkit

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"hash/crc32"
	"math"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// WriteTimeout is how long a client that may be anybody has to accept an answer.
const WriteTimeout = 10 * time.Second

// WriteSlowly writes an answer, for which the client has WriteTimeout.
func WriteSlowly(w http.ResponseWriter, status int, body ...[]byte) {
	// The server's own deadline may have begun when the request did. One that knows
	// no deadlines has none to extend.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(WriteTimeout))
	w.WriteHeader(status)
	for _, piece := range body {
		if _, err := w.Write(piece); err != nil {
			return // the client is gone
		}
	}
}

// AcceptsGzip reports whether a client accepts gzip (Accept-Encoding, RFC 9110 §12.5.3).
func AcceptsGzip(h http.Header) bool {
	for one := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		name, weight, _ := strings.Cut(one, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			_, q, weighted := strings.Cut(weight, "=")
			n, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
			return !weighted || err == nil && n > 0
		}
	}
	return false
}

// Gzipped returns the parts as one member of gzip (RFC 1952). What was not compressed is stored as
// it is: nothing is compressed for a single reader.
func Gzipped(parts []Part) (pieces [][]byte) {
	pieces = append(pieces, []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff})
	sum, size := uint32(0), uint32(0)
	for _, p := range parts {
		sum, size = crc32.Update(sum, crc32.IEEETable, p.Plain), size+uint32(len(p.Plain))
		if p.Deflated != nil {
			pieces = append(pieces, p.Deflated)
			continue
		}
		for block := range slices.Chunk(p.Plain, math.MaxUint16) {
			pieces = append(pieces, stored(0, len(block)), block)
		}
	}
	end := binary.LittleEndian.AppendUint32(stored(1, 0), sum)
	return append(pieces, binary.LittleEndian.AppendUint32(end, size))
}

// stored is the header of a block of so many bytes that are stored as they are (RFC 1951,
// §3.2.4). It begins at the border of a byte, as every block here ends.
func stored(final byte, bytes int) []byte {
	n := uint16(bytes)
	return []byte{final, byte(n), byte(n >> 8), ^byte(n), ^byte(n >> 8)}
}

// Deflated compresses a part of an answer. It ends at the border of a byte, and refers to
// nothing before it.
func Deflated(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	deflating <- struct{}{} // no more of them than can work at once: each has a megabyte of tables
	defer func() { <-deflating }()
	z := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(z)
	var out bytes.Buffer
	z.Reset(&out)
	_, _ = z.Write(b) // into memory: cannot fail
	_ = z.Flush()
	return bytes.Clone(out.Bytes())
}

var deflating = make(chan struct{}, runtime.GOMAXPROCS(0))

var deflaters = sync.Pool{New: func() any {
	z, _ := flate.NewWriter(nil, flate.BestSpeed) // a level that there is
	return z
}}

// A Part is a part of an answer.
type Part struct {
	Plain    []byte
	Deflated []byte // nil: it was not compressed
}
