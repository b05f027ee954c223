package httpkit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/problem"
)

// MaxBody bounds the body of a request, in bytes.
const MaxBody = 64 << 10

var (
	errTooLarge  = problem.New(problem.TooLarge, "body_too_large", "the body is larger than %d KiB", MaxBody>>10)
	errTooSlow   = problem.New(problem.TimedOut, "request_timeout", "the body did not come in time")
	errMalformed = problem.New(problem.Malformed, "malformed_json", "the body is not one well-formed JSON object")
)

// ReadJSON reads a small object into v, strictly: one object, valid UTF-8, no
// name twice, no name that v does not know. It is read as JSON whatever type it
// is said to be (curl -d says that it is a form): no browser sends a credential along
// by itself, so there is nothing that a type could protect. A page of somebody else's
// can have its visitors post a login as text/plain, but no cookie is set by it and,
// without CORS, the page cannot read the answer.
func ReadJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	return decodeStrict(body, v)
}

// ReadOptionalJSON is ReadJSON for a body that may be empty, which leaves v as it is.
func ReadOptionalJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := readBody(w, r)
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return err
	}
	return decodeStrict(body, v)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > MaxBody { // who waits for 100 Continue need not send it
		return nil, errTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return nil, errTooLarge
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errTooSlow.Because(err)
		}
		return nil, errMalformed.Because(err)
	}
	return body, nil
}

// decodeStrict is encoding/json without what it forgives.
func decodeStrict(body []byte, v any) error {
	if err := wellFormed(body); err != nil {
		e := errMalformed.Because(err)
		e.Detail += ": " + err.Error()
		return e
	}
	if err := unmarshal(body, v); err != nil {
		if e, ok := errors.AsType[*problem.Error](err); ok { // of a type of ours, which knows better
			return e
		}
		e := problem.New(problem.Invalid, "invalid_request", "the body does not fit").Because(err)
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			e.Detail = "the body must be one JSON object"
			if wrong.Field != "" {
				e.Detail = fmt.Sprintf("%s must be of type %s", wrong.Field, wrong.Type)
			}
		} else {
			e.Detail = "the body has " + trimJSON(err)
		}
		return e
	}
	return nil
}

// unmarshal reads well-formed JSON into v, which must know every name as it is spelled.
func unmarshal(body []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	var plain any
	if err := json.Unmarshal(body, &plain); err != nil {
		return err
	}
	if name, found := misspelled(plain, reflect.TypeOf(v)); found {
		return fmt.Errorf("unknown field %q", name)
	}
	return nil
}

// misspelled finds a name in value that no field of t has, but that encoding/json
// takes for one: "Username" and "uſername" for "username".
func misspelled(value any, t reflect.Type) (name string, found bool) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch value := value.(type) {
	case []any:
		if t.Kind() != reflect.Slice {
			break
		}
		for _, item := range value {
			if name, found := misspelled(item, t.Elem()); found {
				return name, true
			}
		}
	case map[string]any:
		if t.Kind() != reflect.Struct {
			break
		}
		fields := map[string]reflect.Type{}
		for _, f := range reflect.VisibleFields(t) {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			fields[tag] = f.Type
		}
		for name, member := range value {
			field, known := fields[name]
			if !known {
				return name, true
			}
			if name, found := misspelled(member, field); found {
				return name, true
			}
		}
	}
	return "", false
}

func trimJSON(err error) string {
	return string(bytes.TrimPrefix([]byte(err.Error()), []byte("json: ")))
}

// wellFormed reports whether body is one JSON value of valid UTF-8, also in its
// escapes, in which no object has a name twice: two readers of such a body could
// see two values.
func wellFormed(body []byte) error {
	if !utf8.Valid(body) {
		return errors.New("it is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := uniqueNames(d, 0); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errors.New("it ends too early")
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	if halfCharacter(body) {
		return errors.New("an escape stands for half a character")
	}
	return nil
}

// halfCharacter reports whether well-formed JSON escapes a surrogate without the other
// of its pair (RFC 8259 §8.2). encoding/json reads each as U+FFFD, so that many
// passwords would be one.
func halfCharacter(body []byte) bool {
	for i := bytes.IndexByte(body, '\\'); i >= 0; i = bytes.IndexByte(body, '\\') {
		body = body[i:]
		first, ok := escaped(body)
		if !ok { // another escape, such as \n
			body = body[2:]
			continue
		}
		body = body[6:]
		if !utf16.IsSurrogate(first) {
			continue
		}
		second, _ := escaped(body)
		if utf16.DecodeRune(first, second) == utf8.RuneError {
			return true
		}
		body = body[6:]
	}
	return false
}

// escaped is what the escape \uXXXX stands for with which b begins, if it does.
func escaped(b []byte) (unit rune, ok bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	u, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(u), err == nil
}

// maxDepth bounds how deep a request may nest; none of ours needs more than 3.
const maxDepth = 16

func uniqueNames(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return errors.New("it nests too deep")
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	names := map[string]bool{}
	for d.More() {
		if open == '{' {
			name, err := d.Token()
			if err != nil {
				return err
			}
			s, _ := name.(string)
			if names[s] {
				return fmt.Errorf("the name %q stands twice", s)
			}
			names[s] = true
		}
		if err := uniqueNames(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// WriteJSON answers with a body that no cache may keep.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client is gone
}
