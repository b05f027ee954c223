package page

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// checkHTML holds a page against what a browser, its policy and a screen reader need of it.
func checkHTML(t *testing.T, name, text string) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var all []*html.Node
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			all = append(all, n)
		}
	}
	ids := map[string]*html.Node{}
	for _, n := range all {
		if id, ok := attribute(n, "id"); ok {
			if ids[id] != nil {
				t.Errorf("%s: two elements have the id %q", name, id)
			}
			ids[id] = n
		}
		for _, a := range n.Attr {
			if a.Key == "style" || strings.HasPrefix(a.Key, "on") || strings.HasPrefix(strings.TrimSpace(strings.ToLower(a.Val)), "javascript:") {
				t.Errorf("%s: <%s %s=%q> is against the policy", name, n.Data, a.Key, a.Val)
			}
		}
		if src, _ := attribute(n, "src"); n.Data == "style" || n.Data == "script" && src == "" {
			t.Errorf("%s: <%s> in the page", name, n.Data)
		}
	}
	labels := map[string]bool{}
	for _, n := range all {
		if n.Data == "label" {
			of, _ := attribute(n, "for")
			labels[of] = true
		}
	}
	h1 := 0
	for _, n := range all {
		kind, _ := attribute(n, "type")
		id, _ := attribute(n, "id")
		switch n.Data {
		case "h1":
			h1++
		case "input", "select", "textarea":
			if kind == "hidden" {
				break
			}
			if !labels[id] {
				t.Errorf("%s: the field %q has no label", name, id)
			}
			if _, ok := attribute(n, "autocomplete"); !ok && kind != "file" && kind != "checkbox" {
				t.Errorf("%s: the field %q says nothing of autocomplete", name, id)
			}
			described, _ := attribute(n, "aria-describedby")
			for of := range strings.FieldsSeq(described) {
				if ids[of] == nil {
					t.Errorf("%s: the field %q is described by %q, which is not there", name, id, of)
				}
			}
			for _, suffix := range []string{"-error", "-hint"} {
				if ids[id+suffix] != nil && !slices.Contains(strings.Fields(described), id+suffix) {
					t.Errorf("%s: %q is not tied to its field", name, id+suffix)
				}
			}
			if _, invalid := attribute(n, "aria-invalid"); (ids[id+"-error"] != nil) != invalid {
				t.Errorf("%s: the field %q: aria-invalid is %v", name, id, invalid)
			}
		case "svg":
			if hidden, _ := attribute(n, "aria-hidden"); hidden == "true" {
				break
			}
			role, _ := attribute(n, "role")
			by, _ := attribute(n, "aria-labelledby")
			if role != "img" || by == "" {
				t.Errorf("%s: a drawing without a name", name)
			}
			for of := range strings.FieldsSeq(by) {
				if n := ids[of]; n == nil || n.Data != "title" && n.Data != "desc" {
					t.Errorf("%s: a drawing is named by %q, which is no title", name, of)
				}
			}
		case "img":
			if _, ok := attribute(n, "alt"); !ok {
				t.Errorf("%s: an image without alt", name)
			}
		case "button":
			if kind == "" {
				t.Errorf("%s: a button without a type", name)
			}
		case "figure":
			if !slices.ContainsFunc(slices.Collect(n.Descendants()), func(d *html.Node) bool { return d.Data == "table" }) {
				t.Errorf("%s: a chart without a table", name)
			}
		}
	}
	if h1 != 1 {
		t.Errorf("%s: %d headings of the first level", name, h1)
	}
}

func attribute(n *html.Node, name string) (string, bool) {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val, true
		}
	}
	return "", false
}
