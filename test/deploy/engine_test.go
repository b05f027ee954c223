package deploy

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// chartDir is where the chart is.
const chartDir = "../../deploy/helm/watchword"

// release and namespace are those of every release that is rendered, unless a test renders it
// for another namespace.
const release, namespace = "auth", "login"

// A chart is Helm's chart, read once.
type chart struct {
	about    map[string]any // Chart.yaml
	values   map[string]any // values.yaml
	schema   *jsonschema.Schema
	template *template.Template
	files    []string // the names of templates that make objects
	// namespace is the one that the release is for.
	namespace string
}

// readChart reads the chart as Helm does.
func readChart(t testing.TB) *chart {
	t.Helper()
	c := &chart{namespace: namespace, template: template.New("chart").Option("missingkey=zero")}
	c.template.Funcs(functions(c.template))
	c.about = readYAML(t, filepath.Join(chartDir, "Chart.yaml"))
	c.values = readYAML(t, filepath.Join(chartDir, "values.yaml"))
	if *update {
		golden(t, filepath.Join(chartDir, "values.schema.json"), schemaText(t))
	}
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	c.schema = schema
	for _, pattern := range []string{"templates/*", "templates/tests/*"} {
		files, err := filepath.Glob(filepath.Join(chartDir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if info, err := os.Stat(file); err != nil || info.IsDir() {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.template.New(file).Parse(string(text)); err != nil {
				t.Fatal(err)
			}
			if filepath.Ext(file) == ".yaml" {
				c.files = append(c.files, file)
			}
		}
	}
	return c
}

func readYAML(t testing.TB, file string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseYAML(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return m
}

// parseYAML reads a mapping with the types that JSON has, as Helm does.
func parseYAML(text string) (map[string]any, error) {
	var m map[string]any
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		return nil, err
	}
	plain, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	m = map[string]any{}
	return m, json.Unmarshal(plain, &m)
}

// merge puts values over others: mappings are merged, null removes a key, and everything else
// is replaced.
func merge(under, over map[string]any) map[string]any {
	merged := maps.Clone(under)
	for key, value := range over {
		if value == nil {
			delete(merged, key)
			continue
		}
		below, isMap := merged[key].(map[string]any)
		if above, ok := value.(map[string]any); ok && isMap {
			value = merge(below, above)
		}
		merged[key] = value
	}
	return merged
}

// texts renders the chart with values over its own: what each template of objects says, and
// the notes.
func (c *chart) texts(values map[string]any) (files []string, notes string, err error) {
	all := merge(c.values, values)
	if err := c.schema.Validate(all); err != nil {
		return nil, "", err
	}
	data := map[string]any{
		"Values":  all,
		"Chart":   map[string]any{"Name": c.about["name"], "Version": c.about["version"], "AppVersion": c.about["appVersion"]},
		"Release": map[string]any{"Name": release, "Namespace": c.namespace, "Service": "Helm"},
	}
	for _, file := range append(slices.Clone(c.files), filepath.Join(chartDir, "templates/NOTES.txt")) {
		var text strings.Builder
		if err := c.template.ExecuteTemplate(&text, file, data); err != nil {
			return nil, "", err
		}
		files = append(files, text.String())
	}
	last := len(c.files)
	return files[:last], files[last], nil
}

// render renders the chart with values over its own: its objects, and its notes.
func (c *chart) render(values map[string]any) (objects []object, notes string, err error) {
	files, notes, err := c.texts(values)
	if err != nil {
		return nil, "", err
	}
	for i, text := range files {
		made, err := readObjects(text)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w\n%s", c.files[i], err, text)
		}
		objects = append(objects, made...)
	}
	return objects, notes, nil
}

// functions are those of Helm and Sprig that the chart uses.
func functions(t *template.Template) template.FuncMap {
	return template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var text strings.Builder
			err := t.ExecuteTemplate(&text, name, data)
			return text.String(), err
		},
		"fail":       func(message string) (string, error) { return "", errors.New(message) },
		"default":    func(fallback, value any) any { return either(value, fallback) },
		"trunc":      func(n int, s string) string { return s[:min(n, len(s))] },
		"trimSuffix": func(suffix, s string) string { return strings.TrimSuffix(s, suffix) },
		"trimPrefix": func(prefix, s string) string { return strings.TrimPrefix(s, prefix) },
		"hasPrefix":  func(prefix, s string) bool { return strings.HasPrefix(s, prefix) },
		"contains":   func(part, s string) bool { return strings.Contains(s, part) },
		"splitList":  func(separator, s string) []string { return strings.Split(s, separator) },
		"first":      func(list []string) string { return list[0] },
		"upper":      strings.ToUpper,
		"quote":      func(value any) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
		"sha256sum":  func(s string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(s))) },
		"nindent": func(n int, s string) string {
			pad := "\n" + strings.Repeat(" ", n)
			return pad + strings.ReplaceAll(s, "\n", pad)
		},
		"toYaml": func(value any) (string, error) {
			text, err := yaml.Marshal(value)
			return strings.TrimSuffix(string(text), "\n"), err
		},
		"fromYaml": parseYAML,
		"toJson": func(value any) (string, error) {
			text, err := json.Marshal(value)
			return string(text), err
		},
		"fromJsonArray": func(text string) (list []any, err error) { return list, json.Unmarshal([]byte(text), &list) },
		"int":           func(value any) int { return int(value.(float64)) },
		"kindIs": func(kind string, value any) bool {
			return value != nil && reflect.TypeOf(value).Kind().String() == kind
		},
		"list":   func(items ...any) []any { return items },
		"append": func(list []any, item any) []any { return append(slices.Clone(list), item) },
		"has":    func(item any, list []any) bool { return slices.Contains(list, item) },
		"dict": func(pairs ...any) map[string]any {
			m := map[string]any{}
			for i := 0; i < len(pairs); i += 2 {
				m[pairs[i].(string)] = pairs[i+1]
			}
			return m
		},
		"get": func(m map[string]any, key string) any { return either(m[key], "") },
		"set": func(m map[string]any, key string, value any) map[string]any { m[key] = value; return m },
		"omit": func(m map[string]any, keys ...string) map[string]any {
			m = maps.Clone(m)
			for _, key := range keys {
				delete(m, key)
			}
			return m
		},
		"dig": func(arguments ...any) any {
			last := len(arguments) - 1
			value := arguments[last]
			for _, key := range arguments[:last-1] {
				m, ok := value.(map[string]any)
				if !ok || m[key.(string)] == nil {
					return arguments[last-1]
				}
				value = m[key.(string)]
			}
			return value
		},
	}
}

// either returns the first value, or the second if the first is empty.
func either(value, otherwise any) any {
	if truth, _ := template.IsTrue(value); truth {
		return value
	}
	return otherwise
}

// An object is one of Kubernetes.
type object map[string]any

// readObjects reads the objects of a file.
func readObjects(text string) ([]object, error) {
	var list []object
	for document := range strings.SplitSeq("\n"+text, "\n---") {
		m, err := parseYAML(document)
		if err != nil {
			return nil, err
		}
		if len(m) > 0 {
			list = append(list, m)
		}
	}
	return list, nil
}

// at returns what stands in an object at a path, such as "spec.template.spec"; nil: nothing.
// A number in the path is one of a list.
func (o object) at(path string) any {
	var value any = map[string]any(o)
	for key := range strings.SplitSeq(path, ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[key]
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(v) {
				return nil
			}
			value = v[i]
		default:
			return nil
		}
	}
	return value
}

// text is at for a string.
func (o object) text(path string) string {
	s, _ := o.at(path).(string)
	return s
}

func (o object) kind() string { return o.text("kind") }
func (o object) name() string { return o.text("metadata.name") }

// find returns the objects of a kind.
func find(objects []object, kind string) []object {
	var found []object
	for _, o := range objects {
		if o.kind() == kind {
			found = append(found, o)
		}
	}
	return found
}

// one returns the only object of a kind, or the one of a name.
func one(t testing.TB, objects []object, kind string, name ...string) object {
	t.Helper()
	var found []object
	for _, o := range find(objects, kind) {
		if len(name) == 0 || o.name() == name[0] {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("there are %d objects %s %v", len(found), kind, name)
	}
	return found[0]
}

// podOf returns the specification of the pods that an object makes; nil: it makes none.
func podOf(o object) object {
	switch o.kind() {
	case "Pod":
		return asObject(o.at("spec"))
	case "Deployment", "Job":
		return asObject(o.at("spec.template.spec"))
	}
	return nil
}

func asObject(value any) object {
	m, _ := value.(map[string]any)
	return m
}
