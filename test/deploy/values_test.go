package deploy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/internal/config"
)

var update = flag.Bool("update", false, "write the golden files, values.schema.json and the table in README.md anew")

// A value is one key of values.yaml.
type value struct {
	path    string
	comment string // what stands above it
	node    *yaml.Node
	inner   []*value // the keys of a mapping
}

// readValues reads values.yaml with its comments.
func readValues(t testing.TB) *value {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	return newValue("", "", document.Content[0])
}

func newValue(path, comment string, node *yaml.Node) *value {
	v := &value{path: path, comment: strings.Join(strings.Fields(strings.ReplaceAll(comment, "#", "")), " "), node: node}
	if node.Kind == yaml.MappingNode {
		for i := 0; i < len(node.Content); i += 2 {
			key := node.Content[i]
			v.inner = append(v.inner, newValue(strings.TrimPrefix(path+"."+key.Value, "."), key.HeadComment, node.Content[i+1]))
		}
	}
	return v
}

// walk calls a function for the values below v.
func (v *value) walk(visit func(*value)) {
	for _, inner := range v.inner {
		visit(inner)
		inner.walk(visit)
	}
}

// isLeaf reports whether no other keys stand below it.
func (v *value) isLeaf() bool { return len(v.inner) == 0 }

// plain returns the value as JSON has it.
func (v *value) plain(t testing.TB) any {
	t.Helper()
	var decoded any
	if err := v.node.Decode(&decoded); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(decoded)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

// Every value is documented where it stands, or its group is.
func TestEveryValueIsDocumented(t *testing.T) {
	var check func(v *value, documented bool)
	check = func(v *value, documented bool) {
		documented = documented || v.comment != ""
		if v.isLeaf() && !documented {
			t.Errorf("values.yaml says nothing about %s", v.path)
		}
		for _, inner := range v.inner {
			check(inner, documented)
		}
	}
	for _, group := range readValues(t).inner {
		check(group, false)
	}
}

// The sections of settings that are blocks of the chart have all of the section's settings,
// but for those that the chart sets, and for secrets.
func TestWholeSections(t *testing.T) {
	set := []string{"server.address", "server.metrics_address", "server.tls.cert_file", "server.tls.key_file", "cluster.instance_id"}
	have := map[string]bool{}
	readValues(t).walk(func(v *value) { have[v.path] = true })
	for _, s := range config.Settings() {
		section, _, _ := strings.Cut(s.Key, ".")
		if !slices.Contains(blocks, section) || s.Secret != "" || slices.Contains(set, s.Key) {
			continue
		}
		if !have[s.Key] {
			t.Errorf("values.yaml has no %s; add it, with a comment", s.Key)
		}
	}
	for _, s := range config.Settings() {
		if s.Secret != "" && !have["secrets."+s.Alias] {
			t.Errorf("values.yaml has no secrets.%s (%s)", s.Alias, s.Key)
		}
	}
}

// blocks are the sections of settings that stand in values.yaml by themselves. The others
// are under config.
var blocks = []string{"server", "cluster", "database", "redis"}

// Every name after .Values in a template is a value.
func TestTemplatesUseValuesThatExist(t *testing.T) {
	reference := regexp.MustCompile(`\.Values((?:\.[A-Za-z_]+)+)`)
	values := object(readYAML(t, filepath.Join(chartDir, "values.yaml")))
	files, err := filepath.Glob(filepath.Join(chartDir, "templates", "*"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(chartDir, "templates", "tests", "*"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a directory
		}
		for _, match := range reference.FindAllStringSubmatch(string(text), -1) {
			found++
			if values.at(match[1][1:]) == nil {
				t.Errorf("%s uses %s, which values.yaml does not have", filepath.Base(file), match[0])
			}
		}
	}
	if found < 80 {
		t.Errorf("only %d were found", found)
	}
}

// limits are what the schema says of a value beyond its type.
var limits = map[string]map[string]any{
	"image.digest":                               {"pattern": "^(sha256:[0-9a-f]{64})?$"},
	"image.pullPolicy":                           {"enum": []string{"Always", "IfNotPresent", "Never"}},
	"image.pullSecrets":                          {"items": map[string]any{"type": "object"}},
	"server.replicaCount":                        {"minimum": 1, "maximum": 1000},
	"server.public_url":                          {"pattern": "^(https?://.+)?$"},
	"secrets.as":                                 {"enum": []string{"env", "files"}},
	"service.type":                               {"enum": []string{"ClusterIP", "NodePort", "LoadBalancer"}},
	"service.port":                               {"minimum": 1, "maximum": 65535},
	"service.podIPFamily":                        {"enum": []string{"IPv4", "IPv6"}},
	"migration.backoffLimit":                     {"minimum": 0, "maximum": 100},
	"migration.activeDeadlineSeconds":            {"minimum": 1, "maximum": 86400},
	"podDisruptionBudget.maxUnavailable":         {"type": []string{"integer", "string"}},
	"autoscaling.minReplicas":                    {"minimum": 1, "maximum": 1000},
	"autoscaling.maxReplicas":                    {"minimum": 1, "maximum": 1000},
	"autoscaling.targetCPUUtilizationPercentage": {"minimum": 1, "maximum": 100},
	"networkPolicy.clients":                      {"items": map[string]any{"type": "object"}},
	"networkPolicy.prometheus":                   {"items": map[string]any{"type": "object"}},
	"networkPolicy.databasePorts":                {"items": port, "minItems": 1},
	"networkPolicy.redisPorts":                   {"items": port, "minItems": 1},
	"networkPolicy.apiServerPorts":               {"items": port, "minItems": 1},
	"networkPolicy.extraEgress":                  {"items": map[string]any{"type": "object"}},
	"terminationGracePeriodSeconds":              {"minimum": 1, "maximum": 3600},
	"goMemoryLimit":                              {"pattern": "^([0-9]+([KMGT]i)?B)?$"},
	"tolerations":                                {"items": map[string]any{"type": "object"}},
	"topologySpreadConstraints":                  {"items": map[string]any{"type": "object"}},
	"extraEnv":                                   {"items": map[string]any{"type": "object", "required": []string{"name"}}},
	"extraVolumes":                               {"items": map[string]any{"type": "object", "required": []string{"name"}}},
	"extraVolumeMounts":                          {"items": map[string]any{"type": "object", "required": []string{"name", "mountPath"}}},
}

var port = map[string]any{"type": "integer", "minimum": 1, "maximum": 65535}

// schemaOf is what the schema says of a value.
func schemaOf(t testing.TB, v *value) map[string]any {
	t.Helper()
	s := map[string]any{}
	for i := range allSettings {
		section, _, _ := strings.Cut(v.path, ".")
		if slices.Contains(blocks, section) && allSettings[i].Key == v.path {
			s = schemaOfSetting(&allSettings[i])
		}
	}
	switch {
	case v.path == "config":
		s = schemaOfConfig()
	case v.path == "resources": // Kubernetes knows what may be in it
		s["type"] = "object"
	case len(v.inner) > 0:
		properties := map[string]any{}
		for _, inner := range v.inner {
			properties[inner.path[strings.LastIndexByte(inner.path, '.')+1:]] = schemaOf(t, inner)
		}
		if v.path == "" {
			properties["global"] = map[string]any{"type": "object", "description": "What a chart that has this one shares with all; it is not used."}
		}
		s["type"], s["additionalProperties"], s["properties"] = "object", false, properties
	case s["type"] == nil:
		s["type"] = map[reflect.Kind]string{
			reflect.Bool: "boolean", reflect.Float64: "integer", reflect.String: "string", reflect.Slice: "array", reflect.Map: "object",
		}[reflect.TypeOf(v.plain(t)).Kind()]
	}
	for key, limit := range limits[v.path] {
		s[key] = limit
	}
	if v.path == "secrets.existingSecretKeys" {
		s["items"] = map[string]any{"enum": secretNames(t)}
	}
	if v.comment != "" {
		s["description"] = v.comment
	}
	return s
}

var allSettings = config.Settings()

// secretNames are the variables that carry secrets, as values.yaml has them.
func secretNames(t testing.TB) []string {
	t.Helper()
	var names []string
	for _, group := range readValues(t).inner {
		for _, v := range group.inner {
			if group.path == "secrets" && len(v.inner) > 0 {
				names = append(names, strings.TrimPrefix(v.path, "secrets."))
			}
		}
	}
	return names
}

// schemaOfConfig is what the schema says of config: all settings, but for the sections that
// are blocks, and for secrets, which do not belong into a ConfigMap.
func schemaOfConfig() map[string]any {
	top := map[string]any{"type": "object", "additionalProperties": false}
	for i := range allSettings {
		s := &allSettings[i]
		path := strings.Split(s.Key, ".")
		if slices.Contains(blocks, path[0]) || s.Secret != "" {
			continue
		}
		at := top
		for _, name := range path[:len(path)-1] {
			at = property(at, name)
			at["type"], at["additionalProperties"] = "object", false
		}
		for key, value := range schemaOfSetting(s) {
			property(at, path[len(path)-1])[key] = value
		}
	}
	return top
}

// property returns a property of an object's schema.
func property(of map[string]any, name string) map[string]any {
	if of["properties"] == nil {
		of["properties"] = map[string]any{}
	}
	properties := of["properties"].(map[string]any)
	if properties[name] == nil {
		properties[name] = map[string]any{}
	}
	return properties[name].(map[string]any)
}

// schemaOfSetting is what the schema says of a setting. Watchword itself knows it better, and
// says so when it starts.
func schemaOfSetting(s *config.Setting) map[string]any {
	switch {
	case len(s.OneOf) > 0:
		return map[string]any{"type": "string", "enum": s.OneOf}
	case s.Type == reflect.TypeFor[time.Duration]():
		return map[string]any{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`}
	case s.Type.Kind() == reflect.Bool:
		return map[string]any{"type": "boolean"}
	case s.Type == reflect.TypeFor[int]():
		return map[string]any{"type": "integer"}
	case s.Type == reflect.TypeFor[[]string]():
		return map[string]any{"type": "array", "items": map[string]any{"type": "string"}}
	case s.Type.Kind() == reflect.String:
		return map[string]any{"type": "string"}
	case s.Type.Kind() == reflect.Int:
		return map[string]any{"type": []string{"string", "integer"}}
	}
	return map[string]any{"type": []string{"string", "number"}}
}

// values.schema.json is made from values.yaml and from the settings of package config.
func TestSchema(t *testing.T) {
	golden(t, filepath.Join(chartDir, "values.schema.json"), schemaText(t))
}

func schemaText(t testing.TB) string {
	t.Helper()
	schema := schemaOf(t, readValues(t))
	schema["$schema"] = "http://json-schema.org/draft-07/schema#"
	schema["title"] = "The values of the chart of Watchword"
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// The table of the chart's README.md is made from values.yaml.
func TestReadme(t *testing.T) {
	file := filepath.Join(chartDir, "README.md")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const heading = "## Values\n"
	before, _, found := strings.Cut(string(text), heading)
	if !found {
		t.Fatalf("README.md has no %q", heading)
	}
	var page strings.Builder
	fmt.Fprintf(&page, "%s%s\n<!-- Made from values.yaml by `go test ./test/deploy -update`; change it there. -->\n\n| value | default | meaning |\n|---|---|---|\n", before, heading)
	readValues(t).walk(func(v *value) {
		if v.comment == "" {
			return
		}
		shown := ""
		grouped := slices.ContainsFunc(v.inner, func(inner *value) bool {
			return inner.comment != "" || len(inner.inner) > 0 && inner.inner[0].comment != ""
		})
		if !grouped {
			plain, err := json.Marshal(v.plain(t))
			if err != nil {
				t.Fatal(err)
			}
			shown = "`" + string(plain) + "`"
		}
		fmt.Fprintf(&page, "| `%s` | %s | %s |\n", v.path, shown, strings.ReplaceAll(v.comment, "|", `\|`))
	})
	golden(t, file, page.String())
}

// The values and settings that the page names exist.
func TestPageNamesValuesThatExist(t *testing.T) {
	values := object(readYAML(t, filepath.Join(chartDir, "values.yaml")))
	known := []string{"server.address", "cluster.instance_id"} // which the chart sets
	for _, s := range allSettings {
		known = append(known, s.Key, "config."+s.Key)
	}
	found := 0
	for _, match := range regexp.MustCompile("`([a-zA-Z]+(?:\\.[A-Za-z_]+)+)[`:]").FindAllStringSubmatch(readText(t, "../../docs/deployment/kubernetes.md"), -1) {
		name := match[1]
		if slices.Contains([]string{".yaml", ".json", ".crt"}, filepath.Ext(name)) {
			continue // a file
		}
		found++
		if values.at(name) == nil && !slices.Contains(known, name) {
			t.Errorf("the page names %s, which there is not", name)
		}
	}
	if found < 20 {
		t.Errorf("only %d names were found", found)
	}
}

// golden compares a text with a file, or writes the file.
func golden(t testing.TB, file, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text == string(want) {
		return
	}
	old, fresh := strings.Split(string(want), "\n"), strings.Split(text, "\n")
	for i := range min(len(old), len(fresh)) {
		if old[i] != fresh[i] {
			t.Fatalf("%s is stale from line %d on; look at what changes, and run go test ./test/deploy -update\nthere: %s\nnow:   %s", file, i+1, old[i], fresh[i])
		}
	}
	t.Fatalf("%s is stale: it has %d lines, not %d; look at what changes, and run go test ./test/deploy -update", file, len(old), len(fresh))
}
