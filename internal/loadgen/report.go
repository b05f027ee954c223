package loadgen

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A Report is what a run came to. Times are in milliseconds.
type Report struct {
	Version     string        `json:"version"`
	Began       time.Time     `json:"began"`
	Seconds     float64       `json:"seconds"` // that were measured
	Interrupted bool          `json:"interrupted,omitempty"`
	Loop        string        `json:"loop"` // open or closed
	Rate        float64       `json:"rate,omitempty"`
	Callers     int           `json:"callers"`
	URLs        []string      `json:"urls"`
	Users       int           `json:"users"`
	Mix         Mix           `json:"mix"`
	Seed        uint64        `json:"seed"`
	Operations  []Measurement `json:"operations"`
	Revocations Revocations   `json:"revocations"`
	Limits      []Counted     `json:"limits"`
	Violations  []Broken      `json:"violations"`
	Interval    float64       `json:"interval_seconds"`
	Timeline    []Line        `json:"timeline"`
}

// A Measurement is of one operation.
type Measurement struct {
	Operation Operation        `json:"operation"`
	Done      int64            `json:"done"` // answered as wanted
	PerSecond float64          `json:"per_second"`
	Failures  map[string]int64 `json:"failures"`
	// Latency is of what was done and of what was not answered, from the time at which it was
	// due (open loop) or sent (closed loop).
	Latency Quantiles `json:"latency_ms"`
	// Service is the same from the time at which it was sent, in the open loop.
	Service  *Quantiles `json:"service_ms,omitempty"`
	Spectrum []Share    `json:"spectrum"`
}

// Failed is how many requests were not answered as wanted.
func (m Measurement) Failed() (n int64) {
	for _, c := range m.Failures {
		n += c
	}
	return n
}

// Quantiles are some of a distribution, in milliseconds.
type Quantiles struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

// A Share is how many percent of requests took no longer.
type Share struct {
	Percent float64 `json:"percent"`
	Ms      float64 `json:"ms"`
}

// Revocations are what was seen of revoked tokens.
type Revocations struct {
	Total     int64   `json:"total"`
	BoundMs   float64 `json:"bound_ms"`
	Questions int64   `json:"questions"` // about revoked tokens
	Silent    int64   `json:"unanswered"`
	Skipped   int64   `json:"not_asked"` // tokens about which nobody could be asked after the bound
	Seen      []Seen  `json:"refused_after"`
}

// Seen is how long after a revocation was answered a URL was first seen to refuse the token.
type Seen struct {
	URL   string `json:"url"`
	Count int64  `json:"count"`
	Quantiles
}

// Counted is what was seen of a limit; of one for accounts, at the account that had most.
type Counted struct {
	Name     string  `json:"name"`
	N        int     `json:"n"`
	WindowS  float64 `json:"window_seconds"`
	Allowed  int64   `json:"allowed"`
	Refused  int64   `json:"refused"`
	MostUsed float64 `json:"most_used"` // above 1: overrun
}

// Broken is a kind of violation.
type Broken struct {
	Kind     Violation `json:"kind"`
	Count    int64     `json:"count"`
	Examples []string  `json:"examples"`
}

// A Line is the timeline of one operation.
type Line struct {
	Operation Operation `json:"operation"`
	Done      []float64 `json:"done_per_second"`
	Failed    []float64 `json:"failed_per_second"`
	P50       []float64 `json:"p50_ms"` // 0: there was nothing
	P99       []float64 `json:"p99_ms"`
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func quantiles(h histogram) Quantiles {
	return Quantiles{ms(h.at(50)), ms(h.at(90)), ms(h.at(99)), ms(h.at(99.9)), ms(h.at(100))}
}

// report gathers what was measured, when everything is over.
func (r *run) report(ended time.Time, interrupted bool) *Report {
	seconds := r.Duration.Seconds()
	if interrupted {
		seconds = min(r.Duration, max(ended.Sub(r.from), time.Millisecond)).Seconds()
	}
	rep := &Report{
		Version: r.Version, Began: r.began.UTC().Truncate(time.Millisecond), Seconds: seconds, Interrupted: interrupted,
		Loop: "closed", Rate: r.Rate, Callers: r.Callers, URLs: r.URLs, Users: len(r.Users), Mix: r.Mix, Seed: r.Seed,
		Interval: r.measured.interval.Seconds(), Limits: []Counted{}, Violations: []Broken{},
	}
	if r.measured.open {
		rep.Loop = "open"
	}
	for _, op := range Operations {
		one := r.measured.ops[op]
		m := Measurement{Operation: op, Done: one.done, PerSecond: float64(one.done) / seconds, Failures: one.failures, Latency: quantiles(one.latency)}
		if r.Mix[op] == 0 && one.done == 0 && m.Failed() == 0 {
			continue
		}
		if r.measured.open {
			q := quantiles(one.service)
			m.Service = &q
		}
		for _, b := range one.latency.CumulativeDistributionWithTicks(4) {
			m.Spectrum = append(m.Spectrum, Share{b.Quantile, float64(b.ValueAt) / 1000})
		}
		rep.Operations = append(rep.Operations, m)
		line := Line{Operation: op}
		for _, p := range r.measured.lines[op] {
			line.Done = append(line.Done, float64(p.done)/rep.Interval)
			line.Failed = append(line.Failed, float64(p.failed)/rep.Interval)
			p50, p99 := 0.0, 0.0
			if p.latency != nil {
				p50, p99 = ms(p.latency.at(50)), ms(p.latency.at(99))
			}
			line.P50, line.P99 = append(line.P50, p50), append(line.P99, p99)
		}
		rep.Timeline = append(rep.Timeline, line)
	}
	w := r.watch
	rep.Revocations = Revocations{Total: w.total, BoundMs: ms(r.Bound), Questions: w.questions, Silent: w.silent, Skipped: w.skipped, Seen: []Seen{}}
	for _, url := range slices.Compact(slices.Sorted(slices.Values(r.URLs))) {
		rep.Revocations.Seen = append(rep.Revocations.Seen, Seen{url, w.seen[url].TotalCount(), quantiles(w.seen[url])})
	}
	r.judge.tell(rep)
	return rep
}

// tell writes what was judged into a report.
func (j *judge) tell(rep *Report) {
	j.mu.Lock()
	defer j.mu.Unlock()
	limits := map[string]*Counted{}
	for key, t := range j.limits {
		c := limits[key.name]
		if c == nil {
			c = &Counted{Name: key.name, N: t.limit.N, WindowS: t.limit.Window.Seconds()}
			limits[key.name] = c
		}
		c.Allowed, c.Refused, c.MostUsed = c.Allowed+t.allowed, c.Refused+t.refused, max(c.MostUsed, t.most)
	}
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		rep.Limits = append(rep.Limits, *limits[name])
	}
	for _, v := range Violations {
		if j.counts[v] > 0 {
			rep.Violations = append(rep.Violations, Broken{v, j.counts[v], j.examples[v]})
		}
	}
}

// Verdict returns why the run has failed: what was violated, and operations that never
// succeeded, of which nothing is known. Nil: it has not.
func (r *Report) Verdict() error {
	var wrong []error
	for _, b := range r.Violations {
		wrong = append(wrong, fmt.Errorf("%s: %d times; for example %s", b.Kind, b.Count, b.Examples[0]))
	}
	done := int64(0)
	for _, m := range r.Operations {
		if done += m.Done; m.Done == 0 && m.Failed() > 0 {
			wrong = append(wrong, fmt.Errorf("%s never succeeded", m.Operation))
		}
	}
	if done == 0 && len(wrong) == 0 {
		wrong = append(wrong, errors.New("nothing was measured"))
	}
	if r.Mix[Revoke] > 0 && r.Revocations.Total > 0 && r.Revocations.Total == r.Revocations.Skipped && !r.Interrupted {
		wrong = append(wrong, errors.New("no revoked token could be asked about after the bound"))
	}
	return errors.Join(wrong...)
}

// WriteText writes the report for people.
func (r *Report) WriteText(out io.Writer) error {
	loop := fmt.Sprintf("closed loop, %d callers", r.Callers)
	if r.Loop == "open" {
		loop = fmt.Sprintf("open loop, %s requests a second, latency from when each was due", number(r.Rate))
	}
	fmt.Fprintf(out, "%s; %.1f s, %d users, at %s\n\n", loop, r.Seconds, r.Users, strings.Join(r.URLs, ", "))
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "OPERATION\tDONE\tPER SECOND\tFAILED\tP50 MS\tP90\tP99\tP99.9\tMAX\t")
	for _, m := range r.Operations {
		q := m.Latency
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t\n", m.Operation, m.Done, number(m.PerSecond), m.Failed(), number(q.P50), number(q.P90), number(q.P99), number(q.P999), number(q.Max))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, m := range r.Operations {
		for _, why := range slices.Sorted(maps.Keys(m.Failures)) {
			fmt.Fprintf(out, "%s: %d × %s\n", m.Operation, m.Failures[why], why)
		}
	}
	if v := r.Revocations; v.Total > 0 {
		fmt.Fprintf(out, "\nrevocations: %d; bound %s ms; %d questions about revoked tokens, %d without an answer; %d tokens not asked about after the bound\n",
			v.Total, number(v.BoundMs), v.Questions, v.Silent, v.Skipped)
		for _, s := range v.Seen {
			if s.Count > 0 {
				fmt.Fprintf(out, "%s refuses after: p50 %s ms, p99 %s, longest %s (%d tokens)\n", s.URL, number(s.P50), number(s.P99), number(s.Max), s.Count)
			}
		}
	}
	for i, l := range r.Limits {
		if i == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "limit %s, %d in %s s: %d allowed, %d refused, %.0f %% used at most\n", l.Name, l.N, number(l.WindowS), l.Allowed, l.Refused, 100*l.MostUsed)
	}
	if len(r.Limits) == 0 {
		fmt.Fprintln(out, "\nno limit was counted: no answer named one, and none was expected")
	}
	fmt.Fprintln(out)
	for _, b := range r.Violations {
		fmt.Fprintf(out, "VIOLATION %s: %d times\n", b.Kind, b.Count)
		for _, e := range b.Examples {
			fmt.Fprintf(out, "  %s\n", e)
		}
	}
	if len(r.Violations) == 0 {
		fmt.Fprintln(out, "no violation")
	}
	return nil
}

// number writes a number to three digits.
func number(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}
