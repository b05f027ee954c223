package userfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"

	"github.com/watchword-auth/watchword/internal/problem"
)

// parseArray reads a JSON array of objects.
func parseArray(data []byte) ([]Row, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	line, counted := 1, int64(0)
	at := func(offset int64) int {
		line += bytes.Count(data[counted:offset], []byte("\n"))
		counted = offset
		return line
	}
	if _, err := d.Token(); err != nil { // the bracket that Parse has seen
		return nil, wrong(at(d.InputOffset()), "this is no JSON: %v", err)
	}
	var rows []Row
	for d.More() {
		if len(rows) == MaxRows {
			return nil, errTooManyRows
		}
		var object json.RawMessage
		if err := d.Decode(&object); err != nil {
			rest := data[d.InputOffset():]
			begins := len(rest) - len(bytes.TrimLeft(rest, ", \t\r\n"))
			return nil, wrong(at(d.InputOffset()+int64(begins)), "this is no JSON, or ends too early: %v", err)
		}
		row, err := parseObject(at(d.InputOffset()-int64(len(object))), object)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	if _, err := d.Token(); err != nil {
		return nil, wrong(at(d.InputOffset()), "the list does not end")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, wrong(at(d.InputOffset()), "something follows the list")
	}
	return rows, nil
}

// parseLines reads an object in each line. Lines may be empty.
func parseLines(data []byte) ([]Row, error) {
	var rows []Row
	n := 0
	for text := range bytes.Lines(data) {
		n++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		if len(rows) == MaxRows {
			return nil, errTooManyRows
		}
		row, err := parseObject(n, text)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
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
