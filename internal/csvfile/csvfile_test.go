package csvfile_test

import (
	"bytes"
	"encoding/csv"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/csvfile"
)

// No cell begins as a formula does, and each says again what it said.
func TestCells(t *testing.T) {
	for text, want := range map[string]string{
		"":                         "",
		"ada":                      "ada",
		"a=b":                      "a=b",
		" =1":                      " =1",
		"'":                        "'",
		"''":                       "''",
		"'ada":                     "'ada",
		"O'Hara":                   "O'Hara",
		"=cmd|'/c calc'!A0":        "'=cmd|'/c calc'!A0",
		`=HYPERLINK("//x?"&A1,"")`: `'=HYPERLINK("//x?"&A1,"")`,
		"+1":                       "'+1",
		"-1":                       "'-1",
		"-":                        "'-",
		"@SUM(A1)":                 "'@SUM(A1)",
		"\t=1":                     "'\t=1",
		"\r=1":                     "'\r=1",
		"\n=1":                     "'\n=1",
		"＝1":                       "'＝1",
		"＠x":                       "'＠x",
		"'=1":                      "''=1",
		"''=1":                     "'''=1",
	} {
		cell := csvfile.Cell(text)
		if cell != want {
			t.Errorf("%q: %q, want %q", text, cell, want)
		}
		if back := csvfile.Text(cell); back != text {
			t.Errorf("%q comes back as %q", text, back)
		}
	}
	// What others have written stays, unless it is a guarded formula.
	for cell, want := range map[string]string{"'ada": "'ada", "=1": "=1", "-": "-", "'-": "-", "'": "'"} {
		if got := csvfile.Text(cell); got != want {
			t.Errorf("%q says %q, want %q", cell, got, want)
		}
	}
}

func TestWriter(t *testing.T) {
	var file bytes.Buffer
	w := csvfile.NewWriter(&file)
	line := []string{"=1", `a "b", c`, "", "two\nlines", "ä🎈"}
	if err := errors.Join(w.Line(line...), w.Line("x"), w.Flush()); err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(&file)
	r.FieldsPerRecord = -1
	lines, err := r.ReadAll()
	line[0] = "'=1"
	if err != nil || len(lines) != 2 || !slices.Equal(lines[0], line) || !slices.Equal(lines[1], []string{"x"}) {
		t.Errorf("%q, %v", lines, err)
	}
	if err := errors.Join(csvfile.NewWriter(broken{}).Line("x")); err != nil {
		t.Errorf("before it is flushed: %v", err)
	}
	w = csvfile.NewWriter(broken{})
	if err := errors.Join(w.Line("x"), w.Flush()); !errors.Is(err, errBroken) {
		t.Errorf("a file that cannot be written: %v", err)
	}
}

type broken struct{}

var errBroken = errors.New("disk full")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func FuzzCell(f *testing.F) {
	f.Add("'=x")
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		cell := csvfile.Cell(text)
		if csvfile.Text(cell) != text || cell != "" && strings.ContainsRune("=+-@\t\r\n＝＋－＠", []rune(cell)[0]) {
			t.Errorf("%q became %q", text, cell)
		}
	})
}
