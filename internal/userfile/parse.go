package userfile

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/csvfile"
	"github.com/watchword-auth/watchword/internal/names"
	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/yamlfile"
)

// byteOrderMark begins what some spreadsheets write as UTF-8.
const byteOrderMark = "\ufeff"

var (
	errTooLarge    = problem.New(problem.TooLarge, "file_too_large", "a file of users has at most %d MiB", MaxSize>>20)
	errTooManyRows = problem.New(problem.TooLarge, "too_many_rows", "a file has at most %d users; make several of it", MaxRows)
	errLongRow     = problem.New(problem.TooLarge, "row_too_large", "a row has at most %d KiB", maxRow>>10)
	errEmpty       = problem.New(problem.Invalid, "file_empty", "the file is empty")
)

// wrong is about the file as a whole.
func wrong(line int, format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "invalid_file", "line %d: %s", line, HideHashes(fmt.Sprintf(format, args...)))
}

// wrongRow is about one row.
func wrongRow(format string, args ...any) *problem.Error {
	return problem.New(problem.Invalid, "invalid_row", format, args...)
}

// Read is Parse of all that r has; it reads no more than MaxSize bytes.
func Read(r io.Reader) ([]Row, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("userfile: %w", err)
	}
	return Parse(data)
}

// Parse returns the rows of a file, in their order. Its errors are ones that a client may read.
func Parse(data []byte) ([]Row, error) {
	if len(data) > MaxSize {
		return nil, errTooLarge
	}
	for n, line := 1, data; len(line) > 0; n++ {
		end := bytes.IndexByte(line, '\n') + 1
		if end == 0 {
			end = len(line)
		}
		if !utf8.Valid(line[:end]) {
			return nil, notUTF8(n)
		}
		line = line[end:]
	}
	data = bytes.TrimPrefix(data, []byte(byteOrderMark))
	var rows []Row
	add := func(row Row) error {
		if len(rows) == MaxRows {
			return errTooManyRows
		}
		rows = append(rows, row)
		return nil
	}
	var err error
	switch first := bytes.TrimLeft(data, " \t\r\n"); {
	case len(first) == 0:
		return nil, errEmpty
	case first[0] == '[':
		err = newDecoder(bytes.NewReader(data)).rows(add)
	case first[0] == '{':
		err = eachObject(bytes.Lines(data), add)
	default:
		err = eachRow(bytes.Lines(data), add)
	}
	if err != nil {
		return nil, err
	}
	findTwice(rows)
	return rows, nil
}

// findTwice marks the rows whose username an earlier one has.
func findTwice(rows []Row) {
	lines := make(map[string]int, len(rows))
	for i := range rows {
		key, err := names.UsernameKey(rows[i].Username)
		if err != nil {
			continue // which is what is wrong with it
		}
		key = names.Fold(key)
		if first, ok := lines[key]; !ok {
			lines[key] = rows[i].Line
		} else if rows[i].Wrong == nil {
			rows[i].Wrong = problem.New(problem.Conflict, "row_twice", "line %d has a user of this name, too", first)
		}
	}
}

// eachRow calls f for the rows of a table. Each line is read by itself: no column has texts of several
// lines, a quotation that does not end concerns one row, and a row is never longer than a line.
func eachRow(lines iter.Seq[[]byte], f func(Row) error) error {
	var columns []string
	n := 0
	buffer := bufio.NewReader(nil) // one for all lines
	for text := range lines {
		n++
		if len(bytes.TrimRight(text, "\r\n")) == 0 {
			continue
		}
		cells, broken := cellsOf(text, buffer)
		if columns == nil {
			if broken != nil {
				return wrong(n, "%s", broken.Detail)
			}
			if err := checkColumns(n, cells); err != nil {
				return err
			}
			columns = cells
			continue
		}
		row := Row{Line: n, Wrong: broken}
		if broken == nil && len(cells) != len(columns) {
			row.Wrong = wrongRow("the row has %d cells, and the table %d columns", len(cells), len(columns))
		}
		for i, cell := range cells[:min(len(cells), len(columns))] {
			if err := row.setText(columns[i], csvfile.Text(cell)); err != nil && row.Wrong == nil {
				row.Wrong = err
			}
		}
		if err := f(row.checked()); err != nil {
			return err
		}
	}
	return nil
}

// cellsOf returns the cells of a line.
func cellsOf(text []byte, buffer *bufio.Reader) ([]string, *problem.Error) {
	if len(text) > maxRow {
		return nil, errLongRow
	}
	buffer.Reset(bytes.NewReader(text))
	r := csv.NewReader(buffer)
	cells, err := r.Read()
	var broken *csv.ParseError
	switch {
	case errors.As(err, &broken):
		return nil, wrongRow("this is no line of a table: %v", broken.Err)
	case err != nil:
		return nil, wrongRow("this is no line of a table: %v", err)
	}
	return cells, nil
}

// checkColumns returns what is wrong with the headings of a table.
func checkColumns(line int, columns []string) error {
	if len(columns) == 1 && strings.ContainsAny(columns[0], ";\t") {
		return wrong(line, "the columns are separated by something else than commas")
	}
	for i, name := range columns {
		if !slices.Contains(Columns, name) {
			return unknown(line, "column", name)
		}
		if slices.Contains(columns[:i], name) {
			return wrong(line, "the column %s is there twice", name)
		}
	}
	if !slices.Contains(columns, username) {
		return wrong(line, "there is no column %s", username)
	}
	return nil
}

// unknown is about a name that is none of Columns.
func unknown(line int, what, name string) *problem.Error {
	near := yamlfile.Nearest(name, Columns)
	for _, column := range Columns {
		if near == "" && name != "" && strings.HasPrefix(column, name) {
			near = column
		}
	}
	if near == "" {
		return wrong(line, "there is no %s %s; there are %s", what, quoted(name), strings.Join(Columns, ", "))
	}
	return wrong(line, "there is no %s %s; did you mean %s?", what, quoted(name), near)
}

// word matches what spaces and quotation marks separate.
var word = regexp.MustCompile(`[^\s"]+`)

// HideHashes returns a message or a name without password hashes. Where a column is headed wrongly, a
// hash stands where a group should be, and the message would say which group is not there.
func HideHashes(text string) string {
	const least = 24 // characters of a hash, and more than what a message says of its form
	return word.ReplaceAllStringFunc(text, func(part string) string {
		if len(part) >= least && strings.Count(part, "$") >= 2 {
			return "(a password hash?)"
		}
		return part
	})
}

// quoted is a text of the file for a message.
func quoted(text string) string {
	const most = 64
	if short := []rune(text); len(short) > most {
		text = string(short[:most]) + "…"
	}
	return fmt.Sprintf("%q", text)
}

// setText sets the field of a column to what a cell says. An empty cell says nothing.
func (r *Row) setText(column, text string) *problem.Error {
	if text == "" {
		return nil
	}
	switch column {
	case emailVerified, disabled:
		if text != "true" && text != "false" {
			return wrongRow("%s is true, false or empty, and not %s", column, quoted(text))
		}
		return r.set(column, text == "true")
	case groups:
		list, err := splitGroups(text)
		if err != nil {
			return err
		}
		return r.set(column, list)
	}
	return r.set(column, text)
}

// set sets the field of a column to a string, bool or []string.
func (r *Row) set(column string, value any) *problem.Error {
	var ok bool
	want := "a text"
	switch column {
	case username:
		r.Username, ok = value.(string)
	case email:
		r.Email, ok = value.(string)
	case firstName:
		r.FirstName, ok = value.(string)
	case lastName:
		r.LastName, ok = value.(string)
	case passwordHash:
		r.PasswordHash, ok = value.(string)
	case emailVerified:
		r.EmailVerified, ok = value.(bool)
		want = "true or false"
	case disabled:
		r.Disabled, ok = value.(bool)
		want = "true or false"
	case groups:
		r.Groups, ok = value.([]string)
		want = "a list of texts"
	}
	if !ok {
		return wrongRow("%s is not %s", column, want)
	}
	return nil
}

// checked returns the row with what is wrong with it, if nothing else is.
func (r Row) checked() Row {
	switch {
	case r.Wrong != nil:
	case r.Username == "":
		r.Wrong = wrongRow("the row has no username")
	case len(r.Groups) > MaxGroups:
		r.Wrong = wrongRow("the row has more than %d groups", MaxGroups)
	}
	return r
}

// splitGroups returns the names that joinGroups has joined.
func splitGroups(text string) ([]string, *problem.Error) {
	var all []string
	var name strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && (i+1 == len(text) || text[i+1] != '\\' && text[i+1] != ';'):
			return nil, wrongRow(`in groups, a backslash stands before a semicolon or another backslash only`)
		case c == '\\':
			i++
			name.WriteByte(text[i])
		case c == ';':
			all = append(all, name.String())
			name.Reset()
		default:
			name.WriteByte(c)
		}
	}
	all = append(all, name.String())
	if slices.Contains(all, "") {
		return nil, wrongRow("a group has no name")
	}
	return all, nil
}

// joinGroups writes names into one cell.
func joinGroups(all []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `;`, `\;`)
	escaped := make([]string, len(all))
	for i, name := range all {
		escaped[i] = escape.Replace(name)
	}
	return strings.Join(escaped, ";")
}
