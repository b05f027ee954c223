package userfile_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/problem"
	"github.com/watchword-auth/watchword/internal/userfile"
)

const hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"

// The same users, however they are written.
func TestForms(t *testing.T) {
	want := []userfile.User{
		{Username: "ada", Email: "ada@example.org", EmailVerified: true, FirstName: "Ada", LastName: "O'Hara, Ph. D.", Groups: []string{"Staff", `a;b\c`}},
		{Username: "bob", Disabled: true, PasswordHash: hash},
		{Username: "=eve", FirstName: "-"},
	}
	for name, c := range map[string]struct {
		text  string
		lines []int
	}{
		"table": {"username,email,email_verified,first_name,last_name,disabled,groups,password_hash\n" +
			`ada,ada@example.org,true,Ada,"O'Hara, Ph. D.",false,Staff;a\;b\\c,` + "\n" +
			"bob,,,,,true,,\"" + hash + "\"\n'=eve,,,'-,,,,\n", []int{2, 3, 4}},
		"table of a spreadsheet": {"\ufefflast_name,username,groups,first_name,email,email_verified,disabled,password_hash\r\n" +
			`"O'Hara, Ph. D.",ada,"Staff;a\;b\\c",Ada,ada@example.org,true,false,` + "\r\n\r\n" +
			",bob,,,,,true,\"" + hash + "\"\r\n,=eve,,-,,,,", []int{2, 4, 5}},
		"array": {"\ufeff [\n" + `{"username":"ada","email":"ada@example.org","email_verified":true,"first_name":"Ada","last_name":"O'Hara, Ph. D.","groups":["Staff","a;b\\c"]},` +
			"\n\n" + `{"username":"bob",` + "\n" + `"disabled":true,"password_hash":"` + hash + `"}, {"username":"=eve","first_name":"-","groups":[]}]` + "\n", []int{2, 4, 5}},
		"lines": {`{"username":"ada","email":"ada@example.org","email_verified":true,"first_name":"Ada","last_name":"O'Hara, Ph. D.","groups":["Staff","a;b\\c"]}` + "\r\n\n" +
			`{"username":"bob","disabled":true,"password_hash":"` + hash + `"}` + "\n" + ` {"username":"\u003deve","first_name":"-","email":""}`, []int{1, 3, 4}},
	} {
		rows, err := userfile.Parse([]byte(c.text))
		if err != nil || len(rows) != len(want) {
			t.Errorf("%s: %d rows, %v", name, len(rows), err)
			continue
		}
		for i, row := range rows {
			if len(row.Groups) == 0 {
				row.Groups = nil
			}
			if row.Wrong != nil || !reflect.DeepEqual(row.User, want[i]) || row.Line != c.lines[i] {
				t.Errorf("%s: line %d is %+v, %v; want line %d, %+v", name, row.Line, row.User, row.Wrong, c.lines[i], want[i])
			}
		}
	}
}

// What makes a file unreadable is said with its line, and nothing is read of it.
func TestWrongFiles(t *testing.T) {
	for text, want := range map[string]string{
		"":                                              "file_empty: the file is empty",
		"\ufeff \r\n\t":                                 "file_empty: the file is empty",
		"username\nada\nb\xffb\n":                       "invalid_file: line 3: this is not UTF-8; save the file in that encoding",
		"u\x00s\x00e\x00r\x00":                          `invalid_file: line 1: there is no column "u\x00s\x00e\x00r\x00"; there are `,
		"username,e-mail\n":                             `invalid_file: line 1: there is no column "e-mail"; did you mean email?`,
		"\n\nUsername\n":                                `invalid_file: line 3: there is no column "Username"; did you mean username?`,
		"username,xyzzy_plugh\n":                        `invalid_file: line 1: there is no column "xyzzy_plugh"; there are username, email, email_verified, first_name, last_name, disabled, groups, password_hash`,
		"username,email,username\n":                     "invalid_file: line 1: the column username is there twice",
		"email,first_name\na@b.c,A\n":                   "invalid_file: line 1: there is no column username",
		"username;email\nada;a@b.c\n":                   "invalid_file: line 1: the columns are separated by something else than commas",
		"username\temail\n":                             "invalid_file: line 1: the columns are separated by something else than commas",
		"\"username\n":                                  `invalid_file: line 1: this is no line of a table: extraneous or missing " in quoted-field`,
		"username,password\nada,secret\n":               `invalid_file: line 1: there is no column "password"; did you mean password_hash?`,
		"[\n{\"username\":\"ada\"},\n{]":                "invalid_file: line 3: this is no JSON, or ends too early: ",
		`[{"username":"ada"}`:                           "invalid_file: line 1: the list does not end",
		"[{\"username\":\"ada\"}]\n\n{}":                "invalid_file: line 3: something follows the list",
		"[" + strings.Repeat("[", 100_000):              "invalid_file: line 1: this is no JSON, or ends too early: ",
		"{\"username\":\"ada\"}\n{\"usrname\":\"bob\"}": `invalid_file: line 2: there is no member "usrname"; did you mean username?`,
		`[{"username":"ada","Email":"x"}]`:              `invalid_file: line 1: there is no member "Email"; did you mean email?`,
		"username," + strings.Repeat("x", 70_000):       "invalid_file: line 1: a row has at most 64 KiB",
	} {
		rows, err := userfile.Parse([]byte(text))
		if err == nil || rows != nil || !strings.HasPrefix(err.Error(), want) || problem.From(err).Kind == problem.Internal {
			t.Errorf("%.60q: %d rows, %v; want %s", text, len(rows), err, want)
		}
	}
}

// What is wrong with one row stays with the row.
func TestWrongRows(t *testing.T) {
	const twoUsers = "username\nada\n%s\nzoe\n"
	for text, want := range map[string]string{
		"username,email\nada,\nbob\nzoe,\n":                                                          "invalid_row: the row has 1 cells, and the table 2 columns",
		"username,email\nada,\nbob,,\nzoe,\n":                                                        "invalid_row: the row has 3 cells, and the table 2 columns",
		"username,disabled\nada,\nbob,yes\nzoe,\n":                                                   `invalid_row: disabled is true, false or empty, and not "yes"`,
		"username,email_verified\nada,\nbob,TRUE\nzoe,\n":                                            `invalid_row: email_verified is true, false or empty, and not "TRUE"`,
		"username,email\nada,\n,b@example.org\nzoe,\n":                                               "invalid_row: the row has no username",
		"username,groups\nada,\nbob,a;;b\nzoe,\n":                                                    "invalid_row: a group has no name",
		"username,groups\nada,\nbob,a\\b\nzoe,\n":                                                    "invalid_row: in groups, a backslash stands before a semicolon or another backslash only",
		"username,groups\nada,\nbob,a\\\nzoe,\n":                                                     "invalid_row: in groups, a backslash stands before a semicolon or another backslash only",
		"username,groups\nada,\nbob,g" + strings.Repeat(";g", 100) + "\nzoe,\n":                      "invalid_row: the row has more than 100 groups",
		fmt.Sprintf(twoUsers, `"bob`):                                                                `invalid_row: this is no line of a table: extraneous or missing " in quoted-field`,
		fmt.Sprintf(twoUsers, `b"ob`):                                                                `invalid_row: this is no line of a table: bare " in non-quoted-field`,
		fmt.Sprintf(twoUsers, strings.Repeat(",", 70_000)):                                           "row_too_large: a row has at most 64 KiB",
		fmt.Sprintf(twoUsers, "ada"):                                                                 "row_twice: line 2 has a user of this name, too",
		fmt.Sprintf(twoUsers, "ADA"):                                                                 "row_twice: line 2 has a user of this name, too",
		"{\"username\":\"ada\"}\n[1]\n{\"username\":\"zoe\"}":                                        "invalid_row: this is not a JSON object",
		"{\"username\":\"ada\"}\n{\"username\":\"bob\"\n{\"username\":\"zoe\"}":                      "invalid_row: the object does not end in its line",
		"{\"username\":\"ada\"}\n{\"username\":\"bob\"} x\n{\"username\":\"zoe\"}":                   "invalid_row: something follows the object",
		"{\"username\":\"ada\"}\n{\"username\" \"bob\"}\n{\"username\":\"zoe\"}":                     "invalid_row: this is no JSON object: ",
		`[{"username":"ada"},{"username":7},{"username":"zoe"}]`:                                     "invalid_row: username is not a text",
		`[{"username":"ada"},{"username":null},{"username":"zoe"}]`:                                  "invalid_row: username is not a text",
		`[{"username":"ada"},null,{"username":"zoe"}]`:                                               "invalid_row: this is not a JSON object",
		`[{"username":"ada"},{"username":"bob","username":"eve"},{"username":"zoe"}]`:                "invalid_row: username is there twice",
		`[{"username":"ada"},{"username":"bob","disabled":"true"},{"username":"zoe"}]`:               "invalid_row: disabled is not true or false",
		`[{"username":"ada"},{"username":"bob","groups":"Staff"},{"username":"zoe"}]`:                "invalid_row: groups is not a list of texts",
		`[{"username":"ada"},{"username":"bob","groups":["a",null]},{"username":"zoe"}]`:             "invalid_row: groups is not a list of texts",
		`[{"username":"ada"},{"username":"bob","groups":[["a"]]},{"username":"zoe"}]`:                "invalid_row: groups is not a list of texts",
		`[{"username":"ada"},{"username":{"x":1}},{"username":"zoe"}]`:                               "invalid_row: username is not a text",
		`[{"username":"ada"},{"username":"` + strings.Repeat("b", 70_000) + `"},{"username":"zoe"}]`: "row_too_large: a row has at most 64 KiB",
	} {
		rows, err := userfile.Parse([]byte(text))
		if err != nil || len(rows) != 3 || rows[0].Wrong != nil || rows[2].Wrong != nil || rows[1].Wrong == nil ||
			rows[0].Username != "ada" || rows[2].Username != "zoe" || !strings.HasPrefix(rows[1].Wrong.Error(), want) {
			t.Errorf("%.80q: %v, %.300v; want %s", text, err, rows, want)
		}
	}
}

func TestBounds(t *testing.T) {
	var b, l strings.Builder
	b.WriteString("username\n")
	for n := range userfile.MaxRows {
		fmt.Fprintf(&b, "user%d\n", n)
		fmt.Fprintf(&l, "{\"username\":\"user%d\"}\n", n)
	}
	table, lines := b.String(), l.String()
	if rows, err := userfile.Read(strings.NewReader(table)); err != nil || len(rows) != userfile.MaxRows || rows[userfile.MaxRows-1].Wrong != nil {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	for name, text := range map[string]string{"table": table + "one more", "lines": lines + `{"username":"more"}`,
		"array": "[" + strings.ReplaceAll(lines, "\n", ",\n") + `{"username":"more"}]`} {
		if rows, err := userfile.Read(strings.NewReader(text)); problem.From(err).Code != "too_many_rows" || rows != nil {
			t.Errorf("%s: %d rows, %v", name, len(rows), err)
		}
	}
	if _, err := userfile.Read(strings.NewReader(strings.Repeat("x", userfile.MaxSize+1))); problem.From(err).Code != "file_too_large" {
		t.Error(err)
	}
}

// Whatever a file has, reading it makes no more than a fixed multiple of its size, of which little
// is in use at once.
func TestHostileFiles(t *testing.T) {
	const size = 2 << 20
	for name, text := range map[string]string{
		"cells":                  "username\n" + strings.Repeat(",", size),
		"cells of one quotation": "username\n" + strings.Repeat(`,"`+"\n"+`",`, size/5),
		"nested":                 "[" + strings.Repeat("[", size),
		"texts":                  `[{"username":"a","groups":[` + strings.Repeat(`"",`, size/3-20) + `""]}]`,
		"empty objects":          "[" + strings.Repeat("{},", size/3) + "{}]",
		"empty lines":            "username\n" + strings.Repeat("\n", size),
		"members":                "{" + strings.Repeat(`"username":"",`, size/14),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		rows, err := userfile.Parse([]byte(text))
		runtime.ReadMemStats(&after)
		if made := (after.TotalAlloc - before.TotalAlloc) >> 20; made > 60*size>>20 {
			t.Errorf("%s: %d MiB for %d rows, %v", name, made, len(rows), err)
		}
	}
}

// What is written can be read again, and no cell is a formula.
func TestWriter(t *testing.T) {
	users := []userfile.User{
		{Username: "=cmd|'/c calc'!A0", Email: "+a@example.org", FirstName: "@SUM(A1)", LastName: `-2+3"`, Groups: []string{"=1", `;\`, "<b>"}},
		{Username: "ada", Email: "ada@example.org", EmailVerified: true, FirstName: "'=", LastName: "ü🎈", Disabled: true, PasswordHash: hash},
	}
	for _, form := range []userfile.Form{userfile.CSV, userfile.JSON, userfile.JSONLines} {
		for n := range len(users) + 1 {
			var file bytes.Buffer
			w, err := userfile.NewWriter(&file, form)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range users[:n] {
				if err := w.Write([]userfile.User{u}); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			text := file.String()
			if strings.Contains(text, "argon2id") || strings.Contains(text, "password") {
				t.Errorf("%s: a hash is written: %s", form, text)
			}
			if form == userfile.CSV && strings.Contains("\n"+text, "\n=") || strings.Contains(text, ",=") || strings.Contains(text, ",@") {
				t.Errorf("%s: a formula: %s", form, text)
			}
			rows, err := userfile.Parse(file.Bytes())
			if n == 0 && form == userfile.JSONLines {
				if problem.From(err).Code != "file_empty" {
					t.Error(err)
				}
				continue
			}
			if err != nil || len(rows) != n {
				t.Fatalf("%s: %v, %v\n%s", form, rows, err, text)
			}
			for i, row := range rows {
				want := users[i]
				want.PasswordHash = ""
				if len(row.Groups) == 0 {
					row.Groups = nil
				}
				if row.Wrong != nil || !reflect.DeepEqual(row.User, want) {
					t.Errorf("%s: %+v, %v; want %+v", form, row.User, row.Wrong, want)
				}
			}
		}
	}
	if _, err := userfile.NewWriter(nil, "xml"); problem.From(err).Code != "invalid_form" {
		t.Error(err)
	}
	for _, form := range []userfile.Form{userfile.CSV, userfile.JSON, userfile.JSONLines} {
		w, err := userfile.NewWriter(broken{}, form)
		if err == nil {
			err = w.Write(users)
		}
		if !errors.Is(err, errBroken) {
			t.Errorf("%s: a file that cannot be written: %v", form, err)
		}
	}
}

type broken struct{}

var errBroken = errors.New("disk full")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"username,groups\nada,a;b\n", `[{"username":"ada","groups":["a"]}]`, `{"username":"ada"}`, "\ufeffusername\n\"a"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, err := userfile.Parse(data)
		if err != nil && problem.From(err).Kind == problem.Internal {
			t.Errorf("%q: %v", data, err)
		}
		lines, last := bytes.Count(data, []byte("\n"))+1, 0
		for _, row := range rows {
			if row.Line < max(last, 1) || row.Line > lines || row.Wrong == nil && row.Username == "" {
				t.Errorf("%q: %+v after line %d", data, row, last)
			}
			last = row.Line
		}
	})
}
