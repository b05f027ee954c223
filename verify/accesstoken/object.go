package accesstoken

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"
)

// maxDepth bounds how deep the JSON of a token or a key may be nested.
const maxDepth = 16

var errJSON = errors.New("not one JSON object")

// decodeObject reads exactly one JSON object, strictly: valid UTF-8, no member
// twice at any depth (RFC 7515 §4, RFC 7519 §4), nothing behind it. Names keep
// their case and numbers their digits (json.Number). encoding/json by itself
// would take the last of two equal members and match a struct's fields without
// regard to case, so that what was signed could be read in two ways.
func decodeObject(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, errJSON
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errJSON
	}
	m, err := restOfObject(d, maxDepth)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errJSON
	}
	return m, nil
}

func restOfObject(d *json.Decoder, depth int) (map[string]any, error) {
	m := make(map[string]any, 8)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok {
			return nil, errJSON
		}
		if _, twice := m[name]; twice {
			return nil, errors.New("a JSON object has the same member twice")
		}
		if m[name], err = value(d, depth); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return m, err
}

func restOfArray(d *json.Decoder, depth int) ([]any, error) {
	a := []any{}
	for d.More() {
		v, err := value(d, depth)
		if err != nil {
			return nil, err
		}
		a = append(a, v)
	}
	_, err := d.Token()
	return a, err
}

func value(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	delim, nested := t.(json.Delim)
	if !nested {
		return t, nil
	}
	if depth == 0 {
		return nil, errors.New("the JSON is nested too deep")
	}
	if delim == '{' {
		return restOfObject(d, depth-1)
	}
	return restOfArray(d, depth-1)
}
