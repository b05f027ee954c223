package observability

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-auth/watchword/internal/testenv"
	"github.com/watchword-auth/watchword/test/kit"
)

const (
	alerts     = "../../deploy/observability/alerts.yaml"
	alertTests = "../../deploy/observability/alerts_test.yaml"
	dashboard  = "../../deploy/observability/grafana-dashboard.json"
	runbooks   = "../../docs/deployment/runbooks.md"
)

// A rule raises an alert, or records the result of a query.
type rule struct {
	Alert       string            `yaml:"alert"`
	Record      string            `yaml:"record"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	text, err := os.ReadFile(alerts)
	if err == nil {
		err = yaml.Unmarshal(text, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 30 {
		t.Fatalf("only %d rules were read", len(all))
	}
	return all
}

// A query is an expression of the dashboard.
type query struct{ panel, expr string }

func queries(t *testing.T) (all []query) {
	t.Helper()
	var file struct {
		Panels []struct {
			Title, Type, Description string
			Targets                  []struct{ Expr string }
		}
	}
	text, err := os.ReadFile(dashboard)
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*")
	for _, p := range file.Panels {
		if p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("the panel %q has no description or no query", p.Title)
		}
		for _, q := range p.Targets {
			all = append(all, query{p.Title, fill.Replace(q.Expr)})
		}
	}
	if len(all) < 40 {
		t.Fatalf("only %d queries were read", len(all))
	}
	return all
}

// promtool runs a command of promtool that must succeed.
func promtool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput()
	if err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Each alert says what is wrong and leads to a section of the runbooks, and has a test that raises
// it and one that does not.
func TestAlerts(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", alerts)
	promtool(t, "test", "rules", alertTests)
	tests, err := os.ReadFile(alertTests)
	if err != nil {
		t.Fatal(err)
	}
	anchors := anchorsOf(t, runbooks)
	led := map[string]bool{}
	seen := map[string]bool{}
	for _, r := range rules(t) {
		if r.Record != "" {
			continue
		}
		if seen[r.Alert] {
			t.Errorf("%s: two alerts have this name", r.Alert)
		}
		seen[r.Alert] = true
		if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
			t.Errorf("%s: the severity is %q", r.Alert, r.Labels["severity"])
		}
		if r.For == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s: for, summary or description is missing", r.Alert)
		}
		page, anchor, _ := strings.Cut(r.Annotations["runbook_url"], "#")
		if page != "https://github.com/watchword-auth/watchword/blob/main/docs/deployment/runbooks.md" || !anchors[anchor] {
			t.Errorf("%s: there is no runbook %s", r.Alert, r.Annotations["runbook_url"])
		}
		led[anchor] = true
		if !regexp.MustCompile(`alertname: `+r.Alert+`\n +eval_time: \S+\n +exp_alerts:\n +- `).Match(tests) ||
			!strings.Contains(string(tests), "{alertname: "+r.Alert+", eval_time: 90m, exp_alerts: []}") {
			t.Errorf("%s: no test raises it, or none where all is well", r.Alert)
		}
	}
}

// anchorsOf are the anchors of the headings of a page.
func anchorsOf(t *testing.T, page string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if heading := strings.TrimLeft(line, "#"); heading != line {
			anchor := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
			all[strings.ReplaceAll(anchor, " ", "-")] = true
		}
	}
	return all
}

var (
	named    = regexp.MustCompile(`\b(?:watchword|go|process|up)(?:[_:][a-z0-9_:]+)?\b`)
	selector = regexp.MustCompile(`\b([a-z][a-z0-9_:]*)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(=~|!=|!~|=)\s*"([^"]*)"`)
)

// testExpressions: the dashboard and the rules ask for metrics, labels and values that there are.
func testExpressions(t *testing.T, d *deployment) {
	there := metrics(t, d.all()...)
	exported := map[string]*metric{"up": {labels: map[string]map[string]bool{}}}
	for name, m := range there {
		exported[name] = m
		if m.kind == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				exported[name+suffix] = m
			}
		}
	}
	all := queries(t)
	for _, r := range rules(t) {
		if r.Record != "" {
			exported[r.Record] = nil
		}
		all = append(all, query{r.Alert + r.Record, r.Expr})
	}
	var checked strings.Builder // by promtool, which knows the language
	checked.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, q := range all {
		fmt.Fprintf(&checked, "  - {record: 'q%d', expr: %q}\n", i, q.expr)
		bare := regexp.MustCompile(`"[^"]*"`).ReplaceAllString(q.expr, `""`)
		for _, name := range named.FindAllString(bare, -1) {
			if _, ok := exported[name]; !ok {
				t.Errorf("%s: no replica exports %s", q.panel, name)
			}
		}
		for _, s := range selector.FindAllStringSubmatch(q.expr, -1) {
			m := exported[s[1]]
			if m == nil {
				continue
			}
			for _, one := range matcher.FindAllStringSubmatch(s[2], -1) {
				label, op, value := one[1], one[2], one[3]
				if label == "job" || label == "instance" {
					continue // Prometheus adds them
				}
				if m.labels[label] == nil {
					t.Errorf("%s: %s has no label %s", q.panel, s[1], label)
				}
				if op == "=" && !m.labels[label][value] {
					t.Errorf("%s: no replica exports %s{%s=%q}, but %v", q.panel, s[1], label, value, slices.Sorted(maps.Keys(m.labels[label])))
				}
			}
		}
	}
	file := filepath.Join(t.TempDir(), "queries.yaml")
	if err := os.WriteFile(file, []byte(checked.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

// testDocuments: the documents speak of metrics that there are.
func testDocuments(t *testing.T, d *deployment) {
	there := metrics(t, d.all()...)
	all := slices.Collect(maps.Keys(there))
	name := regexp.MustCompile(`(watchword_[a-z_]+[a-z])(_…)?`)
	found := 0
	err := filepath.WalkDir("../../docs", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		text, err := os.ReadFile(path)
		for _, n := range name.FindAllStringSubmatch(string(text), -1) {
			found++
			group := n[2] != "" // it speaks of all whose names begin so
			if there[n[1]] == nil && !(group && slices.ContainsFunc(all, func(m string) bool { return strings.HasPrefix(m, n[1]+"_") })) {
				t.Errorf("%s: no replica exports %s", path, n[0])
			}
		}
		return err
	})
	if err != nil || found < 60 {
		t.Errorf("%d names of metrics were found: %v", found, err)
	}
}

// testPrometheus: a Prometheus that scrapes a cluster that is well has an answer to each query of the
// dashboard, and raises no alert.
func testPrometheus(t *testing.T, d *deployment) {
	text, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, c := range []*kit.Client{&d.one.Client, &d.two.Client} {
		targets = append(targets, strings.TrimPrefix(c.URL, "http://"))
	}
	p := testenv.Prometheus(t, string(text), targets...)
	ask := func(expr string) (answers int, err error) {
		r, err := http.Get(p.URL + "/api/v1/query?query=" + url.QueryEscape(expr))
		if err != nil {
			return 0, err
		}
		defer r.Body.Close()
		var answer struct {
			Status, Error string
			Data          struct{ Result []any }
		}
		if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
			return 0, err
		}
		if answer.Status != "success" {
			return 0, errors.New(answer.Error)
		}
		return len(answer.Data.Result), nil
	}
	kit.Eventually(t, func() error { // there are two samples of each counter
		n, err := ask(`count_over_time(watchword:http_requests:rate5m{route="GET /metrics"}[1m]) > 1`)
		if err == nil && n == 0 {
			err = errors.New("nothing is recorded yet")
		}
		return err
	})
	for _, q := range queries(t) {
		if n, err := ask(q.expr); err != nil || n == 0 {
			t.Errorf("%s: %s has %d answers: %v", q.panel, q.expr, n, err)
		}
	}
	for _, r := range rules(t) {
		n, err := ask(r.Expr)
		if err != nil || (n == 0) != (r.Alert != "") {
			t.Errorf("%s%s: %s has %d answers: %v", r.Alert, r.Record, r.Expr, n, err)
		}
	}
}
