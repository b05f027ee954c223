package accesstoken

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds how deep the JSON of a token or a key may be nested.
const maxDepth = 16

var (
	errJSON  = errors.New("not a JSON object")
	errTwice = errors.New("a JSON object has the same member twice")
	errDepth = errors.New("the JSON is nested too deep")
)

// decodeObject reads exactly one JSON object, strictly: valid UTF-8, no member
// twice at any depth (RFC 7515 §4, RFC 7519 §4), nothing behind it. Names keep
// their case and numbers their digits (json.Number).
//
// encoding/json would take the last of two equal members and match a struct's
// fields without regard to case, so that what was signed could be read in two
// ways; and it takes several times as long, on the way of every request. The
// test compares the two. The names and values are parts of data and keep it in memory.
func decodeObject(data string) (map[string]any, error) {
	if !utf8.ValidString(data) {
		return nil, errJSON
	}
	d := decoder{rest: data}
	if d.skipSpace() != '{' {
		return nil, errJSON
	}
	m, err := d.object(maxDepth)
	if err != nil {
		return nil, err
	}
	if d.skipSpace(); len(d.rest) > 0 {
		return nil, errJSON
	}
	return m, nil
}

// A decoder holds what has not been read yet.
type decoder struct{ rest string }

// skipSpace returns the next byte that is not white space, or zero at the end.
// It does not take it.
func (d *decoder) skipSpace() byte {
	for i := range len(d.rest) {
		if c := d.rest[i]; c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			d.rest = d.rest[i:]
			return c
		}
	}
	d.rest = ""
	return 0
}

// take takes the next byte that is not white space if it is c.
func (d *decoder) take(c byte) bool {
	if d.skipSpace() != c {
		return false
	}
	d.rest = d.rest[1:]
	return true
}

func (d *decoder) value(depth int) (any, error) {
	switch c := d.skipSpace(); c {
	case '{':
		return d.object(depth - 1)
	case '[':
		return d.array(depth - 1)
	case '"':
		return d.string()
	case 't':
		return true, d.literal("true")
	case 'f':
		return false, d.literal("false")
	case 'n':
		return nil, d.literal("null")
	default:
		return d.number()
	}
}

func (d *decoder) object(depth int) (map[string]any, error) {
	if depth < 0 {
		return nil, errDepth
	}
	m := make(map[string]any, 8)
	d.take('{')
	if d.take('}') {
		return m, nil
	}
	for {
		if d.skipSpace() != '"' {
			return nil, errJSON
		}
		name, err := d.string()
		if err != nil {
			return nil, err
		}
		if _, twice := m[name]; twice {
			return nil, errTwice
		}
		if !d.take(':') {
			return nil, errJSON
		}
		if m[name], err = d.value(depth); err != nil {
			return nil, err
		}
		if d.take('}') {
			return m, nil
		}
		if !d.take(',') {
			return nil, errJSON
		}
	}
}

func (d *decoder) array(depth int) ([]any, error) {
	if depth < 0 {
		return nil, errDepth
	}
	a := []any{}
	d.take('[')
	if d.take(']') {
		return a, nil
	}
	for {
		v, err := d.value(depth)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
		if d.take(']') {
			return a, nil
		}
		if !d.take(',') {
			return nil, errJSON
		}
	}
}

// string leaves the escapes to encoding/json; few tokens have any.
func (d *decoder) string() (string, error) {
	escaped := false
	for i := 1; i < len(d.rest); i++ {
		switch c := d.rest[i]; {
		case c < ' ':
			return "", errJSON
		case c == '\\':
			escaped = true
			i++
		case c == '"':
			quoted := d.rest[:i+1]
			d.rest = d.rest[i+1:]
			if !escaped {
				return quoted[1:i], nil
			}
			var s string
			if json.Unmarshal([]byte(quoted), &s) != nil {
				return "", errJSON
			}
			return s, nil
		}
	}
	return "", errJSON
}

func (d *decoder) literal(word string) error {
	rest, ok := strings.CutPrefix(d.rest, word)
	if !ok {
		return errJSON
	}
	d.rest = rest
	return nil
}

// number leaves the grammar to encoding/json.
func (d *decoder) number() (json.Number, error) {
	end := 0
	for end < len(d.rest) && strings.IndexByte("+-.0123456789Ee", d.rest[end]) >= 0 {
		end++
	}
	n := d.rest[:end]
	if !json.Valid([]byte(n)) {
		return "", errJSON
	}
	d.rest = d.rest[end:]
	return json.Number(n), nil
}
