package loadgen

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The page is whole: it loads and runs nothing, its curves are in it, and what a service or a
// URL says is text.
func TestHTML(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newService()
		s.burst, s.known = 1000, 50*time.Millisecond
		rep := try(t, s, nil)
		rep.URLs[0] = "http://a/<script>alert(1)</script>"
		rep.Violations = []Broken{{WrongAnswer, 1, []string{`it says "<img src=x>"`}}}
		rep.Limits[0].Name = "login-address"
		var out bytes.Buffer
		if err := rep.WriteHTML(&out); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		for _, not := range []string{"<script", "<img", "<link", "src=", "url(", "@import", "NaN", "Inf", "href="} {
			if strings.Contains(strings.ReplaceAll(text, "&lt;img src=x&gt;", ""), not) {
				t.Errorf("the page has %s", not)
			}
		}
		for _, want := range []string{"&lt;script&gt;", "&lt;img src=x&gt;", "wrong answer: 1 times", "login-address", "… from when it was sent"} {
			if !strings.Contains(text, want) {
				t.Errorf("the page has no %q", want)
			}
		}
		if n := len(regexp.MustCompile(`<path class="line (login|renew|verify|revoke)" d="M[0-9.]+ [0-9.]+h`).FindAllString(text, -1)); n != 16 {
			t.Errorf("%d curves, want four in each of four charts", n)
		}
		for _, svg := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(text, -1) {
			d := xml.NewDecoder(strings.NewReader(strings.ReplaceAll(svg, "&nbsp;", " ")))
			for {
				if _, err := d.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatalf("%v in %s", err, svg)
				}
			}
		}
		if _, err := json.Marshal(rep); err != nil {
			t.Error(err)
		}
	})
}

// A report of nothing is a page as well.
func TestHTMLOfNothing(t *testing.T) {
	var out bytes.Buffer
	if err := (&Report{Operations: []Measurement{{Operation: Login}}, Timeline: []Line{{Operation: Login}}}).WriteHTML(&out); err != nil {
		t.Error(err)
	}
}

func TestAxis(t *testing.T) {
	for _, c := range []struct {
		a    axis
		want []float64
	}{
		{axis{low: 0, high: 100}, []float64{0, 20, 40, 60, 80, 100}},
		{axis{low: 0, high: 10}, []float64{0, 2, 4, 6, 8, 10}},
		{axis{low: 3, high: 3}, []float64{3}},
		{axis{low: 0.7, high: 30, log: true}, []float64{1, 2, 5, 10, 20}},
		{axis{low: 1, high: 5000, log: true}, []float64{1, 10, 100, 1000}},
	} {
		got := c.a.ticks()
		ok := len(got) == len(c.want)
		for i := range c.want {
			ok = ok && math.Abs(got[i]-c.want[i]) < 1e-9
		}
		if !ok {
			t.Errorf("%+v: %v, want %v", c.a, got, c.want)
		}
	}
}
