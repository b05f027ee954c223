package userfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/watchword-auth/watchword/internal/problem"
)

// maxAhead is how much of a JSON text is read beyond what was understood: somewhat more than a row
// can have, so that one that is too long is refused by itself.
const maxAhead = 1 << 20

// A decoder reads a JSON text value by value, and knows in which line each of them is.
type decoder struct {
	*json.Decoder
	text     io.Reader
	read     int64   // bytes of text
	newlines []int64 // of which at has not told yet
	line     int
}

func newDecoder(text io.Reader) *decoder {
	d := &decoder{text: text, line: 1}
	d.Decoder = json.NewDecoder(d)
	return d
}

// Read implements io.Reader for the Decoder.
func (d *decoder) Read(p []byte) (int, error) {
	if d.read-d.InputOffset() > maxAhead {
		return 0, errLongRow
	}
	n, err := d.text.Read(p)
	for i, c := range p[:n] {
		if c == '\n' {
			d.newlines = append(d.newlines, d.read+int64(i))
		}
	}
	d.read += int64(n)
	return n, err
}

// at returns the line of a place. Places are asked for in their order.
func (d *decoder) at(offset int64) int {
	passed := 0
	for passed < len(d.newlines) && d.newlines[passed] < offset {
		passed++
	}
	d.line += passed
	d.newlines = append(d.newlines[:0], d.newlines[passed:]...)
	return d.line
}

// fail is wrong for what a method of the Decoder has returned.
func (d *decoder) fail(what string, err error) error {
	if p, ok := errors.AsType[*problem.Error](err); ok { // of what is read
		return problem.New(p.Kind, p.Code, "line %d: %s", d.at(d.InputOffset()), p.Detail)
	}
	if err != nil {
		what = fmt.Sprintf("%s: %v", what, err)
	}
	rest, _ := io.ReadAll(d.Buffered())
	begins := len(rest) - len(bytes.TrimLeft(rest, ", \t\r\n"))
	return wrong(d.at(d.InputOffset()+int64(begins)), "%s", what)
}

// array reads an array, and calls f for the text of each element with its line.
func (d *decoder) array(f func(line int, element json.RawMessage) error) error {
	if start, err := d.Token(); err != nil || start != json.Delim('[') {
		return d.fail("this is no list", err)
	}
	for d.More() {
		var element json.RawMessage
		if err := d.Decode(&element); err != nil {
			return d.fail("this is no JSON, or ends too early", err)
		}
		if err := f(d.at(d.InputOffset()-int64(len(element))), element); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return d.fail("the list does not end", nil)
	}
	return nil
}

// end makes sure that nothing follows.
func (d *decoder) end(what string) error {
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return d.fail("something follows the "+what, nil)
	}
	return nil
}

// rows calls f for the objects of an array that is the whole text.
func (d *decoder) rows(f func(Row) error) error {
	if err := d.array(eachRowOf(f)); err != nil {
		return err
	}
	return d.end("list")
}

func eachRowOf(f func(Row) error) func(line int, element json.RawMessage) error {
	return func(line int, element json.RawMessage) error {
		row, err := parseObject(line, element)
		if err != nil {
			return err
		}
		return f(row)
	}
}

// eachObject calls f for the object in each line. Lines may be empty.
func eachObject(lines iter.Seq[[]byte], f func(Row) error) error {
	n := 0
	for text := range lines {
		n++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		row, err := parseObject(n, text)
		if err == nil {
			err = f(row)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseObject reads the object of one row. Its error is about a member that nobody knows, as a
// column would be; all else is wrong with the row alone.
func parseObject(line int, text []byte) (Row, error) {
	row := Row{Line: line}
	if len(text) > maxRow {
		row.Wrong = errLongRow
		return row, nil
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		row.Wrong = wrongRow("this is not a JSON object")
		return row, nil
	}
	var seen []string
	for d.More() {
		name, value, err := parseMember(d)
		if err != nil {
			row.Wrong = err
			return row, nil
		}
		if !slices.Contains(Columns, name) {
			return row, unknown(line, "member", name)
		}
		if slices.Contains(seen, name) {
			row.Wrong = wrongRow("%s is there twice", name)
			return row, nil
		}
		seen = append(seen, name)
		if err := row.set(name, value); err != nil {
			row.Wrong = err
			return row, nil
		}
	}
	if _, err := d.Token(); err != nil {
		row.Wrong = wrongRow("the object does not end in its line")
		return row, nil
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		row.Wrong = wrongRow("something follows the object")
		return row, nil
	}
	return row.checked(), nil
}

// parseMember reads the next member of an object. The value is a string, bool or []string, and
// nil for anything else.
func parseMember(d *json.Decoder) (name string, value any, _ *problem.Error) {
	broken := func(err error) *problem.Error { return wrongRow("this is no JSON object: %v", err) }
	token, err := d.Token()
	if err != nil {
		return "", nil, broken(err)
	}
	name, _ = token.(string)
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return name, nil, broken(err)
	}
	switch raw[0] {
	case '"':
		var s string
		err = json.Unmarshal(raw, &s)
		value = s
	case 't', 'f':
		value = raw[0] == 't'
	case '[':
		var list []*string // null is no text
		if json.Unmarshal(raw, &list) == nil && !slices.Contains(list, nil) {
			texts := make([]string, len(list))
			for i, s := range list {
				texts[i] = *s
			}
			value = texts
		}
	}
	if err != nil {
		return name, nil, broken(err)
	}
	return name, value, nil
}
