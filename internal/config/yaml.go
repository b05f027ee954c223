package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/internal/yamlfile"
)

// readYAML makes a layer of the file's text. It reads nodes and not a struct, so that each
// problem has its line.
func readYAML(path string, text []byte, env map[string]string) *layer {
	r := &yamlReader{layer: newLayer(), path: path, env: env}
	switch root, err := yamlfile.Read(text); {
	case err != nil:
		r.problem(path, "", "%v", err)
	case root != nil: // an empty file sets nothing
		r.section(root, "")
	}
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
	if yamlfile.IsNull(n) { // a section whose settings are all commented out
		return
	}
	fields, ok := yamlfile.Fields(n, children(path))
	if !ok {
		r.problem(r.at(n.Line), path, "settings are expected here, each as name: value")
		return
	}
	for _, f := range fields {
		key := strings.TrimPrefix(path+"."+f.Name, ".")
		switch s := find(key); {
		case f.First != 0:
			r.problem(r.at(f.Line), key, "it is set already in line %d", f.First)
		case !f.Known:
			r.problem(r.at(f.Line), key, "there is no such setting%s", yamlfile.DidYouMean(suggest(path, f)))
		case s != nil:
			r.setting(s, f.Value)
		default:
			r.section(f.Value, key)
		}
	}
}

// suggest returns the key that was probably meant by an unknown field of a section: one
// of the section with nearly its name, or one of another section with the same name.
func suggest(path string, f yamlfile.Field) string {
	if f.Near != "" {
		return strings.TrimPrefix(path+"."+f.Near, ".")
	}
	for _, s := range settings {
		if strings.HasSuffix(s.Key, "."+f.Name) {
			return s.Key
		}
	}
	return ""
}

// setting reads the value of one setting.
func (r *yamlReader) setting(s *Setting, n *yaml.Node) {
	n = resolve(n)
	switch {
	case yamlfile.IsNull(n): // "address:" with nothing after it sets nothing
	case n.Kind == yaml.ScalarNode:
		if text, err := expand(n.Value, r.env); err != nil {
			r.problem(r.at(n.Line), s.Key, "%v", err)
		} else {
			r.set(s, r.at(n.Line), text)
		}
	case n.Kind == yaml.SequenceNode && s.Type == reflect.TypeFor[[]string]():
		r.list(s, n)
	default:
		r.problem(r.at(n.Line), s.Key, "one value is expected here")
	}
}

// list reads a sequence of values.
func (r *yamlReader) list(s *Setting, n *yaml.Node) {
	items := []string{}
	for _, item := range n.Content {
		item = resolve(item)
		if item.Kind != yaml.ScalarNode {
			r.problem(r.at(item.Line), s.Key, "each item is one value")
			return
		}
		text, err := expand(item.Value, r.env)
		if err != nil {
			r.problem(r.at(item.Line), s.Key, "%v", err)
			return
		}
		items = append(items, text)
	}
	r.values[s.Key], r.where[s.Key] = items, r.at(n.Line)
}

func (r *yamlReader) at(line int) string { return fmt.Sprintf("%s:%d", r.path, line) }

// resolve follows an alias (*name) to the node that it stands for.
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
