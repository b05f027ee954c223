package csvfile

import (
	"encoding/csv"
	"io"
)

// A Writer writes the lines of a table. Its cells are separated by commas.
type Writer struct {
	w     *csv.Writer
	cells []string
}

// NewWriter makes a Writer.
func NewWriter(w io.Writer) *Writer { return &Writer{w: csv.NewWriter(w)} }

// Line writes a line, each text as Cell returns it. It may reach the file with Flush.
func (w *Writer) Line(texts ...string) error {
	w.cells = w.cells[:0]
	for _, text := range texts {
		w.cells = append(w.cells, Cell(text))
	}
	return w.w.Write(w.cells)
}

// Flush writes what is left, and returns the first error of all writes.
func (w *Writer) Flush() error {
	w.w.Flush()
	return w.w.Error()
}
