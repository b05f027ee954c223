package yamlfile

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Read returns the top node of the one document in text, or nil if text is empty. Its
// errors begin with the line where the parser names one, and repeat nothing of the
// text, which may hold passwords.
func Read(text []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil && strings.Contains(err.Error(), "anchor"): // the error repeats what may be a password
		return nil, errors.New("an alias (*name) has no anchor (&name); quote a value that begins with *")
	case err != nil:
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is a second YAML document in the file; keep one")
	}
	return document.Content[0], nil
}

// A Field is one key of a mapping with its value.
type Field struct {
	Name  string // "" if the key is not a scalar
	Line  int    // of the key
	Value *yaml.Node
	// First is the line of the same key earlier in the mapping, or 0.
	First int
	// Known reports whether the key is one of the known names. If it is not, Near is the
	// known name that looks most like it, or "".
	Known bool
	Near  string
}

// Fields returns the fields of a mapping in the order of the file. It returns false if n
// is not a mapping.
func Fields(n *yaml.Node, known []string) ([]Field, bool) {
	if n.Kind != yaml.MappingNode {
		return nil, false
	}
	fields := make([]Field, 0, len(n.Content)/2)
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		f := Field{Line: n.Content[i].Line, Value: n.Content[i+1]}
		if key := n.Content[i]; key.Kind == yaml.ScalarNode {
			f.Name, f.First, f.Known = key.Value, first[key.Value], slices.Contains(known, key.Value)
		}
		if f.First == 0 {
			first[f.Name] = f.Line
		}
		if !f.Known {
			f.Near = Nearest(f.Name, known)
		}
		fields = append(fields, f)
	}
	return fields, true
}

// IsNull reports whether a key has no value: nothing, null or ~.
func IsNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}
