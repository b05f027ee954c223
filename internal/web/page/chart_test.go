package page

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"
)

func render(t *testing.T, c templ.Component) string {
	t.Helper()
	v, _ := visitTo(newKit(t, nil), "localhost", nil)
	var b bytes.Buffer
	if err := c.Render(v.Request.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func minutes(n int) []time.Time {
	times := make([]time.Time, n)
	for i := range times {
		times[i] = noon.Add(time.Duration(i) * time.Minute)
	}
	return times
}

// A line has gaps where nothing is known, and a point for a value between two of them.
func TestLinesHaveGaps(t *testing.T) {
	known, not := func(x float64) Value { return Value{x, true} }, Value{}
	l := Line{Values: []Value{known(0), known(10), not, known(5), not, known(100), known(10)}}
	c := Chart{Times: minutes(7), Lines: []Line{l}}
	if got, want := c.path(l), "M0 100L166.7 90M500 95h.1M833.3 0L1000 90"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	html := render(t, LineChart(c))
	if strings.Count(html, "<td class=\"number\">–</td>") != 2 {
		t.Errorf("the table: %s", html)
	}
}

// The upper edge is a round number above all values, and those of the grid are whole where the
// values are counts.
func TestTop(t *testing.T) {
	for most, want := range map[float64]float64{0: 4, 1: 4, 4: 4, 5: 8, 9: 12, 13: 16, 17: 20, 240: 240, 241: 320, 999: 1000, 1001: 1200, 0.5: 0.6, 0.013: 0.016, 1e9: 1e9} {
		c := Chart{Lines: []Line{{Values: Known(most)}}}
		if got := c.top(); got < want*0.999 || got > want*1.001 {
			t.Errorf("%v: %v, want %v", most, got, want)
		}
	}
	for n := range 5000 {
		c := Chart{Lines: []Line{{Values: Known(n)}}}
		if top := c.top(); top < float64(n) || n > 12 && top > 1.6*float64(n) {
			t.Errorf("%d: %v", n, top)
		}
	}
}

// The table of a long chart has bounded rows, which together have every value in them.
func TestTablesOfChartsAreBounded(t *testing.T) {
	for _, n := range []int{0, 1, 2, maxRows, maxRows + 1, 180, 1000} {
		values := make([]int, n)
		if n > 0 {
			values[n-1] = 7
		}
		c := Chart{Title: "x", Times: minutes(n), Lines: []Line{{"a", Known(values...)}, {"b", nil}}}
		groups := c.groups()
		if len(groups) > maxRows || n > 0 && len(groups) == 0 {
			t.Errorf("%d times: %d rows", n, len(groups))
		}
		if n > 0 && groups[len(groups)-1].values[0].Number != 7 {
			t.Errorf("%d times: the last one is in no row", n)
		}
		if html := render(t, LineChart(c)); strings.Contains(html, "NaN") || strings.Contains(html, "Inf") {
			t.Errorf("%d times: %s", n, html)
		}
	}
}

func TestTimeline(t *testing.T) {
	h := time.Hour
	line := Timeline{Title: "Signing keys", From: noon, To: noon.Add(10 * h), Now: noon.Add(5 * h), Rows: []TimelineRow{{"a <key>", []Segment{
		{noon.Add(-5 * h), noon.Add(-h), Coming, "published"},
		{noon.Add(-h), noon.Add(4 * h), Current, "active"},
		{noon.Add(4 * h), noon.Add(20 * h), Ending, "retiring"},
	}}}}
	if got := line.shown(line.Rows[0]); len(got) != 2 || got[0].Text != "active" {
		t.Errorf("%v", got)
	}
	if got := line.box(line.Rows[0].Segments[1]); got.x != "0" || got.width != "400" {
		t.Errorf("%v", got)
	}
	if got := line.box(line.Rows[0].Segments[2]); got.x != "400" || got.width != "600" {
		t.Errorf("%v", got)
	}
	html := render(t, TimelineChart(line))
	for _, want := range []string{`class="now" x1="500" x2="500"`, "a &lt;key&gt;", "published", "<desc", "2026-03-14 16:00:00 UTC"} {
		if !strings.Contains(html, want) {
			t.Errorf("there is no %s in %s", want, html)
		}
	}
}

// What somebody else typed is shown as it is, wherever it stands.
func TestComponentsEscape(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>'`
	html := render(t, templ.Join(
		Field(Input{Name: "a", Label: evil, Value: evil, Hint: evil, Error: evil}), TextArea(Input{Name: "b", Label: evil, Value: evil}),
		Select(Input{Name: "c", Label: evil}, []Option{{Value: evil, Text: evil}}), Checkbox(Input{Name: "d", Label: evil}), Hidden("e", evil),
		Alert(Message{Text: evil}), Badge(Good, evil), Empty(evil, evil), Code(evil, evil), Stat(evil, evil, evil), Fact(evil), Progress(evil, 1, 2),
		Table(evil, []Column{{Label: evil, Href: "javascript:alert(1)"}}), Tabs(evil, []Tab{{"javascript:alert(1)", evil, true}}), LinkButton("javascript:alert(1)", evil),
		Confirm(Confirmation{Action: "javascript:alert(1)", Text: evil, Button: evil, Cancel: "javascript:alert(1)", Fields: map[string]string{"f": evil}}),
		LineChart(Chart{Title: evil, Description: evil, Unit: evil, Times: minutes(2), Lines: []Line{{evil, Known(1, 2)}, {evil, Known(1, 2)}}}),
		TimelineChart(Timeline{Title: evil, Description: evil, From: noon, To: noon.Add(1), Rows: []TimelineRow{{evil, []Segment{{noon, noon.Add(1), Current, evil}}}}}),
	))
	for _, bad := range []string{"<script", "<img", "javascript:"} {
		if strings.Contains(html, bad) {
			i := strings.Index(html, bad)
			t.Errorf("%s is in the page: …%s…", bad, html[max(0, i-80):min(len(html), i+60)])
		}
	}
	// A password or a code that was typed is not sent back.
	if html := render(t, templ.Join(PasswordField(Input{Name: "p", Label: "P", Value: "hunter2"}), CodeField(Input{Name: "c", Label: "C", Value: "123456"}))); strings.Contains(html, "hunter2") || strings.Contains(html, "123456") {
		t.Error(html)
	}
}
