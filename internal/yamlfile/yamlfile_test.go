package yamlfile

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestRead(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n"} {
		if n, err := Read([]byte(text)); n != nil || err != nil {
			t.Errorf("%q: %v, %v", text, n, err)
		}
	}
	if n, err := Read([]byte("\na: b\n")); err != nil || n.Kind != yaml.MappingNode || n.Line != 2 {
		t.Errorf("%+v, %v", n, err)
	}
	for text, want := range map[string]string{
		"a: [":          "line 1: did not find expected node content",
		"a: b\n---\n":   "there is a second YAML document in the file; keep one",
		"a: *S3cret":    "an alias (*name) has no anchor (&name); quote a value that begins with *",
		"a: b\nc: \xff": "invalid leading UTF-8 octet",
		"a: b\n\x00":    "control characters are not allowed",
		"a: \"S3cret\n": "line 2: found unexpected end of stream",
	} {
		if _, err := Read([]byte(text)); err == nil || !strings.HasSuffix(err.Error(), want) || strings.Contains(err.Error(), "S3cret") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestFields(t *testing.T) {
	n, err := Read([]byte("name: a\nvalue:\nnme: b\nname: c\n? [x]\n: d\n? [y]\n: e\nxyzzy: f\nname: g\n"))
	if err != nil {
		t.Fatal(err)
	}
	fields, ok := Fields(n, []string{"name", "value"})
	if !ok {
		t.Fatal("it is a mapping")
	}
	want := []Field{
		{Name: "name", Line: 1, Known: true}, {Name: "value", Line: 2, Known: true}, {Name: "nme", Line: 3, Near: "name"},
		{Name: "name", Line: 4, First: 1, Known: true}, {Line: 5}, {Line: 7},
		{Name: "xyzzy", Line: 9}, {Name: "name", Line: 10, First: 1, Known: true},
	}
	if len(fields) != len(want) {
		t.Fatalf("%+v", fields)
	}
	for i, f := range fields {
		if f.Value.Kind != yaml.ScalarNode || IsNull(f.Value) != (f.Name == "value") {
			t.Errorf("the value of field %d is %+v", i, f.Value)
		}
		if f.Value = nil; f != want[i] {
			t.Errorf("field %d is %+v, want %+v", i, f, want[i])
		}
	}
	for _, other := range []string{"[a, b]", "text", "null"} {
		n, err := Read([]byte(other))
		if err != nil {
			t.Fatal(err)
		}
		if fields, ok := Fields(n, nil); ok || fields != nil {
			t.Errorf("%s has the fields %+v", other, fields)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"address", "public_url", "tls"}
	for name, want := range map[string]string{
		"adress": "address", "addresss": "address", "addrezz": "address", "Address": "address", "publicurl": "public_url",
		"tsl": "tls", "host": "", "url": "", "": "", strings.Repeat("address", 10): "",
	} {
		if got := Nearest(name, names); got != want {
			t.Errorf("nearest to %q is %q, want %q", name, got, want)
		}
	}
	for _, d := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"flaw", "lawn", 2}, {"abc", "abc", 0}} {
		if got := distance(d.a, d.b); got != d.want {
			t.Errorf("distance(%q, %q) = %d, want %d", d.a, d.b, got, d.want)
		}
	}
}
