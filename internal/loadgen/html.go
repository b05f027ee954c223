package loadgen

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
)

//go:embed report.gohtml
var page string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"number":  number,
	"percent": func(f float64) string { return fmt.Sprintf("%.0f %%", 100*f) },
}).Parse(page))

// WriteHTML writes the report as one page, which needs nothing else and runs nothing.
func (r *Report) WriteHTML(out io.Writer) error {
	var done, p50, p99, spectrum []curve
	for _, l := range r.Timeline {
		over := func(values []float64, gaps bool) curve {
			c := curve{class: string(l.Operation)}
			for i, v := range values {
				if gaps && v == 0 {
					v = math.NaN()
				}
				c.x, c.y = append(c.x, (float64(i)+0.5)*r.Interval), append(c.y, v)
			}
			return c
		}
		done, p50, p99 = append(done, over(l.Done, false)), append(p50, over(l.P50, true)), append(p99, over(l.P99, true))
	}
	for _, m := range r.Operations {
		c := curve{class: string(m.Operation)}
		for _, s := range m.Spectrum {
			if s.Percent < 100 && s.Ms > 0 {
				c.x, c.y = append(c.x, 100/(100-s.Percent)), append(c.y, s.Ms)
			}
		}
		spectrum = append(spectrum, c)
	}
	return pageTemplate.Execute(out, struct {
		*Report
		Charts []chart
	}{r, []chart{
		draw("Requests a second, answered as wanted, over time (s)", done, false, false, number),
		draw("Latency over time (s): the 99th percentile of each moment, ms", p99, false, true, number),
		draw("Latency over time (s): the median of each moment, ms", p50, false, true, number),
		draw("Latency by percentile, ms", spectrum, true, true, func(x float64) string {
			return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.4f", 100-100/x), "0"), ".") + " %"
		}),
	}})
}

// A curve is the values of one operation. NaN is a gap.
type curve struct {
	class string
	x, y  []float64
}

// A chart is ready to be drawn.
type chart struct {
	Title         string
	Width, Height int
	Grid          []gridLine
	Series        []series
}

type gridLine struct {
	Path, Text, Anchor string
	X, Y               float64
}

type series struct{ Class, Path string }

const (
	chartWidth, chartHeight = 900, 260
	marginLeft, marginTop   = 60, 10
	marginRight, marginLow  = 20, 30
)

// draw lays out a chart, with a logarithmic axis where it is said so. xText writes what stands
// below the horizontal one.
func draw(title string, curves []curve, logX, logY bool, xText func(float64) string) chart {
	c := chart{Title: title, Width: chartWidth, Height: chartHeight}
	x, y := axis{log: logX}, axis{log: logY, zero: !logY}
	for _, one := range curves {
		for i := range one.x {
			if !math.IsNaN(one.y[i]) {
				x.include(one.x[i])
				y.include(one.y[i])
			}
		}
	}
	if !x.any {
		return c
	}
	right, low := float64(chartWidth-marginRight), float64(chartHeight-marginLow)
	atX := func(v float64) float64 { return marginLeft + x.place(v)*(right-marginLeft) }
	atY := func(v float64) float64 { return low - y.place(v)*(low-marginTop) }
	for _, v := range y.ticks() {
		c.Grid = append(c.Grid, gridLine{fmt.Sprintf("M%d %.1fH%.0f", marginLeft, atY(v), right), short(v), "end", marginLeft - 8, math.Round(atY(v)) + 4})
	}
	for _, v := range x.ticks() {
		c.Grid = append(c.Grid, gridLine{fmt.Sprintf("M%.1f %d V%.0f", atX(v), marginTop, low), trim(xText(v)), "middle", math.Round(atX(v)), low + 18})
	}
	for _, one := range curves {
		var path strings.Builder
		pen := "M"
		for i := range one.x {
			if math.IsNaN(one.y[i]) {
				pen = "M"
				continue
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", pen, atX(one.x[i]), atY(one.y[i]))
			if pen == "M" {
				path.WriteString("h0.1") // a point by itself is seen, too
			}
			pen = "L"
		}
		c.Series = append(c.Series, series{one.class, path.String()})
	}
	return c
}

func short(v float64) string { return trim(number(v)) }

func trim(text string) string {
	if strings.Contains(text, ".") && !strings.HasSuffix(text, "%") {
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	return text
}

// An axis reaches from the least value to the greatest.
type axis struct {
	log, zero, any bool
	low, high      float64
}

func (a *axis) include(v float64) {
	if !a.any {
		a.any, a.low, a.high = true, v, v
		if a.zero {
			a.low = 0
		}
	}
	a.low, a.high = min(a.low, v), max(a.high, v)
}

// place is where a value stands, from 0 to 1.
func (a *axis) place(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		v, low, high = math.Log(v), math.Log(low), math.Log(high)
	}
	if high == low {
		return 0.5
	}
	return (v - low) / (high - low)
}

// ticks are round values within the axis: powers of ten, with twice and five times them where
// there are few.
func (a *axis) ticks() (ticks []float64) {
	if a.log {
		steps := []float64{1, 2, 5}
		if a.high/a.low > 1000 {
			steps = steps[:1]
		}
		for power := math.Floor(math.Log10(a.low)); power <= math.Log10(a.high); power++ {
			for _, s := range steps {
				if v := s * math.Pow(10, power); v >= a.low && v <= a.high {
					ticks = append(ticks, v)
				}
			}
		}
		return ticks
	}
	if a.high == a.low {
		return []float64{a.low}
	}
	step := math.Pow(10, math.Floor(math.Log10(a.high-a.low)))
	for _, finer := range []float64{2, 2.5} {
		if (a.high-a.low)/step < 4 {
			step /= finer
		}
	}
	for v := math.Ceil(a.low/step) * step; v <= a.high; v += step {
		ticks = append(ticks, v)
	}
	return ticks
}
