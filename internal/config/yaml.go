package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// readYAML makes a layer of the file's text. It reads YAML's nodes rather than a
// struct, so that each problem has its line.
func readYAML(path string, text []byte, env map[string]string) *layer {
	r := &yamlReader{layer: newLayer(), path: path, env: env}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF): // an empty file sets nothing
		return r.layer
	case err != nil && strings.Contains(err.Error(), "anchor"): // it repeats what may be a password
		r.problem(path, "", "an alias (*name) has no anchor (&name); quote a value that begins with *")
		return r.layer
	case err != nil:
		r.problem(path, "", "%s", strings.TrimPrefix(err.Error(), "yaml: "))
		return r.layer
	}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		r.problem(path, "", "there is a second YAML document in the file; keep one")
		return r.layer
	}
	r.section(document.Content[0], "")
	return r.layer
}

type yamlReader struct {
	*layer
	path string
	env  map[string]string
}

// section reads a mapping whose keys continue path.
func (r *yamlReader) section(n *yaml.Node, path string) {
	n = resolve(n)
	if n.ShortTag() == "!!null" { // a section whose settings are all commented out
		return
	}
	if n.Kind != yaml.MappingNode {
		r.problem(r.at(n), path, "settings are expected here, each as name: value")
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := strings.TrimPrefix(path+"."+name.Value, ".")
		if first, twice := seen[name.Value]; twice {
			r.problem(r.at(name), key, "it is set already in line %d", first)
			continue
		}
		seen[name.Value] = name.Line
		siblings := children(path)
		switch s := find(key); {
		case name.Kind != yaml.ScalarNode || !slices.Contains(siblings, name.Value):
			r.problem(r.at(name), key, "there is no such setting%s", suggest(path, name.Value, siblings))
		case s != nil:
			r.setting(s, value)
		default:
			r.section(value, key)
		}
	}
}

// suggest names what was probably meant by an unknown name in a section: one that
// is written nearly so, or the same name in another section.
func suggest(path, name string, siblings []string) string {
	if near := nearest(name, siblings); near != "" {
		return didYouMean(strings.TrimPrefix(path+"."+near, "."))
	}
	for _, s := range settings {
		if strings.HasSuffix(s.Key, "."+name) {
			return didYouMean(s.Key)
		}
	}
	return ""
}

// setting reads the value of one setting.
func (r *yamlReader) setting(s *Setting, n *yaml.Node) {
	n = resolve(n)
	switch {
	case n.ShortTag() == "!!null": // "address:" with nothing after it sets nothing
	case n.Kind == yaml.ScalarNode:
		if text, err := expand(n.Value, r.env); err != nil {
			r.problem(r.at(n), s.Key, "%v", err)
		} else {
			r.set(s, r.at(n), text)
		}
	case n.Kind == yaml.SequenceNode && s.Type == reflect.TypeFor[[]string]():
		r.list(s, n)
	default:
		r.problem(r.at(n), s.Key, "one value is expected here")
	}
}

// list reads a sequence of values.
func (r *yamlReader) list(s *Setting, n *yaml.Node) {
	items := []string{}
	for _, item := range n.Content {
		item = resolve(item)
		if item.Kind != yaml.ScalarNode {
			r.problem(r.at(item), s.Key, "each item is one value")
			return
		}
		text, err := expand(item.Value, r.env)
		if err != nil {
			r.problem(r.at(item), s.Key, "%v", err)
			return
		}
		items = append(items, text)
	}
	r.values[s.Key], r.where[s.Key] = items, r.at(n)
}

func (r *yamlReader) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", r.path, n.Line) }

// resolve follows an alias (*name) to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${NAME} with the variable's value; $${ stands for ${ itself.
func expand(text string, env map[string]string) (string, error) {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "${")
		if !found {
			return out.String() + text, nil
		}
		if escaped, ok := strings.CutSuffix(before, "$"); ok {
			out.WriteString(escaped + "${")
			text = after
			continue
		}
		name, rest, closed := strings.Cut(after, "}")
		if !closed || !variableName.MatchString(name) {
			return "", errors.New("${ is not followed by a variable's name and }; write $${ for the two characters themselves")
		}
		value, set := env[name]
		if !set {
			return "", fmt.Errorf("the variable %s is not set", name)
		}
		out.WriteString(before + value)
		text = rest
	}
}
