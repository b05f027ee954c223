package accesstoken

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"testing"
	"unicode/utf8"
)

// FuzzDecodeObject compares with encoding/json: what decodeObject accepts,
// encoding/json reads in the same way; what it refuses, encoding/json refuses
// too, or it is not UTF-8, nested too deep, no object, or has a member twice.
func FuzzDecodeObject(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"a":1}`, ` { "a" : [ 1 , -0.5e+3 , true , false , null , {} , [] ] } `, `{"a":"\u00e4\n\"\\","b":"ä"}`,
		`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"a":{"b":1,"b":1}}`, `{"a":1}x`, `{"a":01}`, `{"a":1.}`, `{"a":+1}`, `{"a":-}`,
		`{"a":nul}`, `{"a":truex}`, `{"a":"` + "\t" + `"}`, `{"a":"\x"}`, `{"a":"\ud800"}`, `{"a"}`, `{"a":}`, `{,}`, `{"a":1,}`, `[`, `{`,
		`{"a":[1,]}`, `{"a":[1 2]}`, `{"a":[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}`, `null`, `"a"`, `1`, ``, "{\"a\":\"\xff\"}", "{\"a\":1}\x00",
		`{"a":"\`, `{"a":1e400}`, `{"a":1e5}`, `{"":""}`, `{1:1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeObject(string(data))
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		var want map[string]any
		theirs := d.Decode(&want)
		if theirs == nil {
			if _, end := d.Token(); end != io.EOF {
				theirs = errJSON
			}
		}
		switch {
		case err == nil && (theirs != nil || !reflect.DeepEqual(got, want)):
			t.Errorf("%q: read as %v, by encoding/json as %v, %v", data, got, want, theirs)
		case err == nil && colons(data) != members(got):
			t.Errorf("%q: a member twice was accepted", data)
		case err == errJSON && theirs == nil && want != nil && utf8.Valid(data):
			t.Errorf("%q: refused, but encoding/json reads %v", data, want)
		case err == errTwice && theirs == nil && colons(data) == members(want):
			t.Errorf("%q: refused for a member twice, but none is", data)
		}
	})
}

// colons counts those outside strings: in valid JSON, one for each member.
func colons(data []byte) int {
	n, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			inString = !inString
		case '\\':
			i++ // only strings have backslashes
		case ':':
			if !inString {
				n++
			}
		}
	}
	return n
}

// members counts those of v and of everything in it.
func members(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		n = len(v)
		for _, inner := range v {
			n += members(inner)
		}
	case []any:
		for _, inner := range v {
			n += members(inner)
		}
	}
	return n
}
