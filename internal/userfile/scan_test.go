package userfile_test

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/userfile"
)

// scanned is what Scan gives to a sink.
type scanned struct {
	claims []userfile.Claim
	groups []userfile.Group
	rows   []userfile.Row
}

func (s *scanned) sink() userfile.Sink {
	return userfile.Sink{
		Claim: func(c userfile.Claim) error { s.claims = append(s.claims, c); return nil },
		Group: func(g userfile.Group) error { s.groups = append(s.groups, g); return nil },
		User:  func(r userfile.Row) error { s.rows = append(s.rows, r); return nil },
	}
}

// Scan reads what Parse reads, however its text comes in.
func TestScanReadsWhatParseReads(t *testing.T) {
	for text, form := range map[string]userfile.Form{
		"\ufeffusername,groups\r\nada,Staff\r\n\r\nbob,\"a\n'=eve,\n" + strings.Repeat("x", 70<<10) + ",\nzoë,":      userfile.CSV,
		"\ufeff [\n{\"username\":\"ada\",\n\"groups\":[\"Staff\"]},\n\n {\"username\":7}, {\"username\":\"zoë\"}]\n": userfile.JSON,
		"{\"groups\":[\"Staff\"],\"username\":\"ada\"}\r\n\n{\"username\":\n {\"username\":\"zoë\"}":                 userfile.JSON,
	} {
		want, err := userfile.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for how, r := range map[string]io.Reader{"at once": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text)), "with its end": iotest.DataErrReader(strings.NewReader(text))} {
			var got scanned
			if err := userfile.Scan(r, form, got.sink()); err != nil || fmt.Sprint(got.rows) != fmt.Sprint(want) {
				t.Errorf("%.20q, %s: %v, %v\nwant %v", text, how, got.rows, err, want)
			}
		}
	}
}

// A document has claims and groups before its users.
func TestScanDocument(t *testing.T) {
	var got scanned
	err := userfile.Scan(strings.NewReader(`{"claims":[{"name":"Log reader",
"short_name":"log","value":"r"}],"groups":[
{"name":"Crew","claims":["Log reader"]},{"name":"Empty"}],
"users":[{"username":"ada","groups":["Crew"]},
{"username":""}]} `), userfile.JSON, got.sink())
	want := scanned{
		claims: []userfile.Claim{{Line: 1, Name: "Log reader", ShortName: "log", Value: "r"}},
		groups: []userfile.Group{{Line: 3, Name: "Crew", Claims: []string{"Log reader"}}, {Line: 3, Name: "Empty"}},
	}
	if err != nil || !reflect.DeepEqual(got.claims, want.claims) || !reflect.DeepEqual(got.groups, want.groups) ||
		len(got.rows) != 2 || got.rows[0].Line != 4 || got.rows[0].Username != "ada" || got.rows[1].Line != 5 || got.rows[1].Wrong == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// What makes a file unreadable is said with its line. What came before it was given to the sink.
func TestScanRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "file_empty: the file is empty",
		" \n":                                    "file_empty: the file is empty",
		"username":                               "line 1: this is no JSON",
		"{\"claims\":[],\n\"x\":1}":              `line 2: there is no member "x"; there are claims, groups and users`,
		"{\"groups\":[],\n\"claims\":[]}":        "line 2: claims is there twice, or after what needs it",
		"{\"users\":[],\n\"users\":[]}":          "line 2: users is there twice",
		`{"claims":{}}`:                          "line 1: this is no list",
		"{\"claims\":[\n7]}":                     "line 2: this is not a JSON object",
		"{\"claims\":[\n{\"nam\":\"x\"}]}":       `line 2: there is no member "nam" here`,
		`{"claims":[{"name":"x","name":"y"}]}`:   `line 1: there is no member "name" here, or it is there twice`,
		`{"groups":[{"name":"x","claims":"y"}]}`: "line 1: claims is not what it should be",
		`{"groups":[{"name":null}]}`:             "line 1: name is not what it should be",
		"{\"users\":[{\"username\":\"ada\"}":     "line 1: the list does not end",
		"{\"users\":[]":                          "line 1: the document does not end",
		"{\"users\":[]}\n{":                      "line 2: something follows the document",
		"{\"users\":[{\"username\":\"ada\",\"mail\":\"x\"}]}":   `line 1: there is no member "mail"; did you mean email?`,
		"[{\"username\":\"ada\"},\n{\"username\":\"b\xff\"}]":   "line 2: this is not UTF-8",
		"{\"username\":\"ada\"}\n{\"username\":\"b\xc3\"}":      "line 2: this is not UTF-8",
		"[\n\"" + strings.Repeat("x", 3<<20) + "\"]":            "line 2: a row has at most 64 KiB",
		"[{\"username\":\"ada\"}," + strings.Repeat(" ", 3<<20): "a row has at most 64 KiB",
	} {
		var got scanned
		err := userfile.Scan(strings.NewReader(text), userfile.JSON, got.sink())
		if p := problem.From(err); err == nil || !strings.Contains(p.Code+": "+p.Detail, want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
	var got scanned
	// One that is somewhat too long is refused alone.
	if err := userfile.Scan(strings.NewReader("[\""+strings.Repeat("x", 1<<20)+"\",{\"username\":\"ada\"}]"), userfile.JSON, got.sink()); err != nil || len(got.rows) != 2 || got.rows[0].Wrong == nil || got.rows[1].Wrong != nil {
		t.Errorf("%v, %d rows", err, len(got.rows))
	}
	got = scanned{}
	err := userfile.Scan(strings.NewReader("username\nada\nb\xff\n"), userfile.CSV, got.sink())
	if p := problem.From(err); p.Detail != "line 3: this is not UTF-8; save the file in that encoding" || len(got.rows) != 1 {
		t.Errorf("%v, %d rows", err, len(got.rows))
	}
	gone := errors.New("the disk is gone")
	for text, form := range map[string]userfile.Form{"username\nada\n": userfile.CSV, "[": userfile.JSON, "{\"username\":\"ada\"}\n": userfile.JSON} {
		if err := userfile.Scan(io.MultiReader(strings.NewReader(text), iotest.ErrReader(gone)), form, got.sink()); err == nil {
			t.Errorf("%q: the end of the disk is taken for that of the file", text)
		}
	}
	for text, form := range map[string]userfile.Form{"username\nada\nbob": userfile.CSV, `[{"username":"ada"},{"username":"bob"}]`: userfile.JSON, "{\"username\":\"ada\"}\n{\"username\":\"bob\"}": userfile.JSON} {
		n := 0
		err := userfile.Scan(strings.NewReader(text), form, userfile.Sink{User: func(userfile.Row) error { n++; return gone }})
		if !errors.Is(err, gone) || n != 1 {
			t.Errorf("%q: %v after %d rows", text, err, n)
		}
	}
}

// endless repeats a text.
type endless struct {
	text string
	left int
	at   int
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if e.at == len(e.text) {
			if e.at = 0; e.left == 0 {
				return n, io.EOF
			}
			e.left--
		}
		c := copy(p[n:], e.text[e.at:])
		n, e.at = n+c, e.at+c
	}
	return n, nil
}

// A file of 6 MiB is read within two or three, whatever its form; one line as long, too.
func TestScanHoldsLittle(t *testing.T) {
	const rows = 1200
	user := `{"username":"ada","first_name":"` + strings.Repeat("x", 5000) + `"}`
	for name, c := range map[string]struct {
		form userfile.Form
		text io.Reader
		rows int
	}{
		"table":    {userfile.CSV, io.MultiReader(strings.NewReader("username,first_name\n"), &endless{text: "ada," + strings.Repeat("x", 5000) + "\n", left: rows - 1}), rows},
		"lines":    {userfile.JSON, &endless{text: user + "\n", left: rows - 1}, rows},
		"array":    {userfile.JSON, io.MultiReader(strings.NewReader("["), &endless{text: user + ",\n", left: rows - 2}, strings.NewReader(user+"]")), rows},
		"document": {userfile.JSON, io.MultiReader(strings.NewReader(`{"users":[`), &endless{text: user + ",\n", left: rows - 2}, strings.NewReader(user+"]}")), rows},
		"one line": {userfile.CSV, io.MultiReader(strings.NewReader("username\n"), &endless{text: strings.Repeat("x", 5000), left: rows - 1}), 1},
	} {
		var before, now runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		var most uint64
		n := 0
		err := userfile.Scan(c.text, c.form, userfile.Sink{User: func(userfile.Row) error {
			if n++; n%300 == 1 {
				runtime.GC()
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc)
			}
			return nil
		}})
		if took := int64(most-before.HeapAlloc) >> 20; err != nil || n != c.rows || took > 3 {
			t.Errorf("%s: %d rows, %v, %d MiB", name, n, err, took)
		}
	}
}
