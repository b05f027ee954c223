package userfile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/watchword-auth/watchword/internal/problem"
)

// A Claim is a right that a document names.
type Claim struct {
	Line                   int
	Name, ShortName, Value string
}

// A Group is a group that a document names.
type Group struct {
	Line   int
	Name   string
	Claims []string // names
}

// A Sink takes what a source has, one after the other. An error ends the reading.
type Sink struct {
	Claim func(Claim) error
	Group func(Group) error
	User  func(Row) error
}

// The members of a document, in the order in which they stand there.
const (
	inClaims = "claims"
	inGroups = "groups"
	inUsers  = "users"
)

// Scan reads a file of any size and number of rows, of which it holds a part of a MiB at a time. With
// CSV the file is a table; with JSON it is an array, JSON Lines, or a document: an object of the
// lists claims, groups and users, in this order, each of which may be missing. Its errors, but for
// those of the sink, are ones that a client may read.
func Scan(r io.Reader, form Form, to Sink) error {
	text := bufio.NewReaderSize(r, maxRow)
	if mark, _ := text.Peek(len(byteOrderMark)); string(mark) == byteOrderMark {
		_, _ = text.Discard(len(byteOrderMark))
	}
	if form == CSV {
		return eachLine(text, func(lines *lineReader) error { return eachRow(lines.all, to.User) })
	}
	first, _ := text.Peek(maxRow)
	first = bytes.TrimLeft(first, " \t\r\n")
	switch {
	case len(first) == 0:
		return errEmpty
	case first[0] == '[':
		return validJSON(text, func(d *decoder) error { return d.rows(to.User) })
	case first[0] == '{' && isDocument(first):
		return validJSON(text, func(d *decoder) error { return d.document(to) })
	case first[0] == '{':
		return eachLine(text, func(lines *lineReader) error { return eachObject(lines.all, to.User) })
	}
	return wrong(1, "this is no JSON")
}

// isDocument reports whether the first member is one of a document and not of a user, which has
// groups, too: a list of texts.
func isDocument(begins []byte) bool {
	d := json.NewDecoder(bytes.NewReader(begins))
	_, _ = d.Token()
	name, err := d.Token()
	if err != nil || name != inClaims && name != inGroups && name != inUsers {
		return err == nil && name == json.Delim('}') // an empty one
	}
	_, _ = d.Token()
	element, err := d.Token()
	_, isText := element.(string)
	return err == nil && !isText
}

// A lineReader reads lines of any length, and returns no more than somewhat over maxRow bytes of each.
type lineReader struct {
	text *bufio.Reader
	n    int
	err  error // why it has ended
}

// eachLine is for what ranges over the lines.
func eachLine(text *bufio.Reader, do func(*lineReader) error) error {
	lines := &lineReader{text: text}
	err := do(lines)
	if lines.err != nil {
		return lines.err
	}
	if err == nil && lines.n == 0 {
		return errEmpty
	}
	return err
}

func (l *lineReader) all(yield func([]byte) bool) {
	for {
		line, err := l.text.ReadSlice('\n')
		if len(line) == 0 && err != nil {
			l.end(err)
			return
		}
		l.n++
		if errors.Is(err, bufio.ErrBufferFull) { // which is as long as a row may be
			line = append(bytes.Clone(line), "too long"...)
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = l.text.ReadSlice('\n')
			}
		} else if !utf8.Valid(line) {
			l.err = notUTF8(l.n)
			return
		}
		if !yield(line) {
			return
		}
		if err != nil {
			l.end(err)
			return
		}
	}
}

func (l *lineReader) end(err error) {
	if !errors.Is(err, io.EOF) {
		l.err = fmt.Errorf("userfile: %w", err)
	}
}

func notUTF8(line int) error {
	return wrong(line, "this is not UTF-8; save the file in that encoding")
}

// validJSON is for what reads a JSON text, of which package json would replace what is not UTF-8.
func validJSON(text io.Reader, do func(*decoder) error) error {
	v := &validText{text: text, line: 1}
	return do(newDecoder(v))
}

// A validText is a text that ends with an error where it is not UTF-8.
type validText struct {
	text io.Reader
	rest []byte // the beginning of a character
	line int
}

func (v *validText) Read(p []byte) (int, error) {
	if len(p) < utf8.UTFMax {
		return 0, io.ErrShortBuffer
	}
	n := copy(p, v.rest)
	read, err := v.text.Read(p[n:])
	n += read
	v.rest = nil
	whole := n
	for back := 1; back < utf8.UTFMax && back <= n; back++ {
		if utf8.RuneStart(p[n-back]) {
			if !utf8.FullRune(p[n-back:n]) && err == nil {
				whole = n - back
				v.rest = bytes.Clone(p[whole:n])
			}
			break
		}
	}
	if !utf8.Valid(p[:whole]) {
		valid := p[:whole]
		for i := 0; i < len(valid); {
			c, size := utf8.DecodeRune(valid[i:])
			if c == utf8.RuneError && size == 1 {
				valid = valid[:i]
				break
			}
			i += size
		}
		return 0, notUTF8(v.line + bytes.Count(valid, []byte("\n")))
	}
	v.line += bytes.Count(p[:whole], []byte("\n"))
	return whole, err
}

// document reads an object of lists.
func (d *decoder) document(to Sink) error {
	if _, err := d.Token(); err != nil { // the brace that Scan has seen
		return d.fail("this is no JSON", err)
	}
	order := []string{inClaims, inGroups, inUsers}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return d.fail("this is no JSON", err)
		}
		name, _ := token.(string)
		if !slices.Contains(order, name) {
			if slices.Contains([]string{inClaims, inGroups, inUsers}, name) {
				return d.fail(name+" is there twice, or after what needs it; the order is claims, groups, users", nil)
			}
			return d.fail(fmt.Sprintf("there is no member %s; there are claims, groups and users", quoted(name)), nil)
		}
		order = order[slices.Index(order, name)+1:]
		switch name {
		case inClaims:
			err = d.array(func(line int, text json.RawMessage) error {
				c := Claim{Line: line}
				err := membersOf(line, text, map[string]any{"name": &c.Name, "short_name": &c.ShortName, "value": &c.Value})
				if err == nil {
					err = to.Claim(c)
				}
				return err
			})
		case inGroups:
			err = d.array(func(line int, text json.RawMessage) error {
				g := Group{Line: line}
				err := membersOf(line, text, map[string]any{"name": &g.Name, "claims": &g.Claims})
				if err == nil {
					err = to.Group(g)
				}
				return err
			})
		case inUsers:
			err = d.array(eachRowOf(to.User))
		}
		if err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return d.fail("the document does not end", nil)
	}
	return d.end("document")
}

// membersOf sets texts and lists of texts to the members of an object. All errors end the reading:
// without a claim or a group, the users after it would lack rights.
func membersOf(line int, text json.RawMessage, fields map[string]any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return wrong(line, "this is not a JSON object")
	}
	for d.More() {
		name, value, broken := parseMember(d)
		if broken != nil {
			return wrong(line, "%s", broken.Detail)
		}
		var ok bool
		switch field := fields[name].(type) {
		case *string:
			*field, ok = value.(string)
		case *[]string:
			*field, ok = value.([]string)
		default:
			return wrong(line, "there is no member %s here, or it is there twice", quoted(name))
		}
		if !ok {
			return wrong(line, "%s is not what it should be: a text, or a list of texts", name)
		}
		delete(fields, name)
	}
	return nil
}

// MadeOf returns a row of what a source other than a file has.
func MadeOf(u User, wrongWith *problem.Error) Row {
	return Row{User: u, Wrong: wrongWith}.checked()
}
