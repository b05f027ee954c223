package page

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Chart is what LineChart draws.
type Chart struct {
	ID                 string // unique in the page; empty: it is made of the title
	Title, Description string
	Unit               string      // of the numbers; may be empty
	Times              []time.Time // at even distances
	Lines              []Line
	Format             func(float64) string // gives a number as text; nil: as the language writes numbers
}

// A Line is a series of numbers, as many as its chart has times.
type Line struct {
	Name   string
	Values []Value
}

// A Value is a number that may not be known. A line has a gap there.
type Value struct {
	Number float64
	Known  bool
}

// Known returns the values of numbers that are all known.
func Known[N ~int | ~int64 | ~float64](numbers ...N) []Value {
	values := make([]Value, len(numbers))
	for i, n := range numbers {
		values[i] = Value{float64(n), true}
	}
	return values
}

// A Timeline draws rows of segments on one axis of time.
type Timeline struct {
	ID                 string // unique in the page; empty: it is made of the title
	Title, Description string
	From, To, Now      time.Time
	Rows               []TimelineRow
}

// A TimelineRow is one row of a Timeline.
type TimelineRow struct {
	Label    string
	Segments []Segment
}

// A Segment is a span of time, as of a signing key that is active.
type Segment struct {
	From, To time.Time
	Kind     SegmentKind
	Text     string // what it is: "active"; the same for all of a kind
}

// A SegmentKind is how a Segment looks: by its color, and by its height and edge.
type SegmentKind string

// The kinds of segments.
const (
	Coming  SegmentKind = "coming"  // before it is used
	Current SegmentKind = "current" // in use
	Ending  SegmentKind = "ending"  // after that
	Broken  SegmentKind = "broken"  // as of what was revoked
)

// Charts are drawn in this many units, and stretched to the room that there is. What would be
// distorted by that, as text, is not in the drawing but around it.
const (
	chartWidth  = 1000
	chartHeight = 100
	rowHeight   = 24
	gridLines   = 4 // above the one of zero
	timeLabels  = 5
	// maxRows bounds the table of a chart. Beyond it a row stands for several times.
	maxRows = 24
)

func (c Chart) id() string    { return cmp.Or(c.ID, slug(c.Title)) }
func (t Timeline) id() string { return cmp.Or(t.ID, slug(t.Title)) }

// slug makes an id of a title.
func slug(title string) string {
	return "chart-" + strings.Trim(strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			return c
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		}
		return '-'
	}, title), "-")
}

func (c Chart) format(ctx context.Context, x float64) string {
	if c.Format != nil {
		return c.Format(x)
	}
	return Of(ctx).Decimal(x)
}

func (c Chart) cell(ctx context.Context, v Value) string {
	if !v.Known {
		return "–"
	}
	return c.format(ctx, v.Number)
}

// empty reports whether no value is known.
func (c Chart) empty() bool {
	for _, l := range c.Lines {
		for _, v := range l.Values {
			if v.Known {
				return false
			}
		}
	}
	return true
}

// top is the number at the upper edge: a round one, so that those of the grid are round too.
func (c Chart) top() float64 {
	most := 0.0
	for _, l := range c.Lines {
		for _, v := range l.Values {
			if v.Known && !math.IsInf(v.Number, 0) && !math.IsNaN(v.Number) {
				most = max(most, v.Number)
			}
		}
	}
	if most <= 0 {
		return gridLines
	}
	magnitude := math.Pow(10, math.Floor(math.Log10(most)))
	for _, round := range []float64{1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10, 12} {
		top := round * magnitude
		whole := math.Mod(math.Round(top*10), gridLines*10) == 0
		if top >= most && (most < 1 || whole || top >= 5*gridLines) {
			return top
		}
	}
	return most
}

// grid returns the numbers beside the grid's lines, from the top.
func (c Chart) grid(ctx context.Context) []string {
	texts := make([]string, gridLines+1)
	for i := range texts {
		texts[i] = c.format(ctx, c.top()*float64(gridLines-i)/gridLines)
	}
	return texts
}

func gridY(i int) string { return number(chartHeight * float64(i) / gridLines) }

// number writes a coordinate.
func number(x float64) string { return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64) }

func height(x, top float64) float64 { return chartHeight * min(max(x, 0), top) / top }

// path draws a line with gaps where values are not known.
func (c Chart) path(l Line) string {
	var b strings.Builder
	top, pen := c.top(), "M"
	for i, v := range l.Values {
		if !v.Known {
			pen = "M"
			continue
		}
		fmt.Fprintf(&b, "%s%s %s", pen, number(c.x(i)), number(chartHeight-height(v.Number, top)))
		if alone := pen == "M" && (i+1 == len(l.Values) || !l.Values[i+1].Known); alone {
			b.WriteString("h.1") // with round ends: a point
		}
		pen = "L"
	}
	return b.String()
}

// x is where the i-th time is.
func (c Chart) x(i int) float64 {
	return chartWidth * float64(i) / float64(max(len(c.Times)-1, 1))
}

// A group is one row of a chart's table: of one time, or of several.
type group struct {
	time     time.Time
	x, width float64
	values   []Value // of each line, the highest
}

// groups returns the rows of a chart's table.
func (c Chart) groups() []group {
	n := len(c.Times)
	each := c.each()
	var all []group
	for from := 0; from < n; from += each {
		g := group{values: make([]Value, len(c.Lines))}
		half := c.x(1) / 2
		left, right := max(c.x(from)-half, 0), min(c.x(min(from+each, n)-1)+half, chartWidth)
		g.time, g.x, g.width = c.Times[from], left, right-left
		for i, l := range c.Lines {
			for _, v := range l.Values[min(from, len(l.Values)):min(from+each, len(l.Values))] {
				if v.Known && (!g.values[i].Known || v.Number > g.values[i].Number) {
					g.values[i] = v
				}
			}
		}
		all = append(all, g)
	}
	return all
}

// each is how many times a row of the table stands for.
func (c Chart) each() int {
	return max(1, (len(c.Times)+maxRows-1)/maxRows)
}

// summary is what a pointer on a group is shown.
func (c Chart) summary(ctx context.Context, g group) string {
	lines := []string{exact(g.time)}
	for i, l := range c.Lines {
		lines = append(lines, l.Name+": "+c.cell(ctx, g.values[i]))
	}
	return strings.Join(lines, "\n")
}

// series is the class of the i-th line: its color and its dashes.
func series(i int) string { return "series-" + strconv.Itoa(i%6+1) }

// axis returns moments at even distances, for the labels of an axis.
func axis(from, to time.Time) []time.Time {
	times := make([]time.Time, timeLabels)
	for i := range times {
		times[i] = from.Add(to.Sub(from) * time.Duration(i) / (timeLabels - 1))
	}
	return times
}

func (c Chart) axis() []time.Time {
	if len(c.Times) < 2 {
		return c.Times
	}
	return axis(c.Times[0], c.Times[len(c.Times)-1])
}

// clock writes a moment on an axis, shortly.
func clock(t time.Time, span time.Duration) string {
	switch {
	case span <= 36*time.Hour:
		return t.UTC().Format("15:04")
	case span <= 10*24*time.Hour:
		return t.UTC().Format("Mon 15:04")
	}
	return t.UTC().Format("2 Jan")
}

// clockKind says to the script how to write such a moment in the viewer's zone.
func clockKind(span time.Duration) string {
	switch {
	case span <= 36*time.Hour:
		return "hour"
	case span <= 10*24*time.Hour:
		return "weekday"
	}
	return "day"
}

func span(times []time.Time) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[len(times)-1].Sub(times[0])
}

func exact(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// x is where a moment is.
func (t Timeline) x(at time.Time) float64 {
	whole := t.To.Sub(t.From)
	if whole <= 0 {
		return 0
	}
	return min(max(float64(at.Sub(t.From))/float64(whole), 0), 1) * chartWidth
}

// shown are the segments of a row that have a part in the time that is drawn.
func (t Timeline) shown(r TimelineRow) []Segment {
	var all []Segment
	for _, s := range r.Segments {
		if s.From.Before(t.To) && t.From.Before(s.To) {
			all = append(all, s)
		}
	}
	return all
}

// A box is a rectangle of a drawing.
type box struct {
	class, x, y, width, height string
}

// box is where a segment is drawn.
func (t Timeline) box(s Segment) box {
	y, h := 4.0, 16.0
	switch s.Kind {
	case Coming:
		y, h = 7, 10
	case Ending:
		y, h = 9, 6
	}
	left := t.x(s.From)
	return box{"segment " + string(s.Kind), number(left), number(y), number(max(t.x(s.To)-left, 2)), number(h)}
}

// kinds are those that there are, with what they are called.
func (t Timeline) kinds() []Segment {
	var all []Segment
	seen := map[SegmentKind]bool{}
	for _, r := range t.Rows {
		for _, s := range r.Segments {
			if !seen[s.Kind] {
				seen[s.Kind] = true
				all = append(all, s)
			}
		}
	}
	return all
}

// describe says in words what a row has.
func (t Timeline) describe(r TimelineRow) string {
	var parts []string
	for _, s := range t.shown(r) {
		parts = append(parts, s.summary())
	}
	return strings.Join(parts, "; ")
}

func (s Segment) summary() string { return s.Text + ": " + exact(s.From) + " – " + exact(s.To) }
